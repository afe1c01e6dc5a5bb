import math

import pytest
import torch
from kd_core.criteria.cwd import CWD, cwd
from kd_core.errors import UserError
from kd_core.testing import signals
from torch import nn

STUDENT, TEACHER = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)


@pytest.mark.parametrize(
    ("temperature", "reference"), [(1, 0.05465221228122787), (4, 0.06073275872572659)]
)
def test_equals_the_value_of_the_authors_code(temperature, reference, golden):
    golden(cwd(STUDENT, TEACHER, temperature=temperature), reference)


def distribution(channel, temperature):
    powers = [math.exp(value / temperature) for value in channel.flatten().tolist()]
    return [power / sum(powers) for power in powers]


def slow(student, teacher, temperature):
    loss, (samples, channels) = 0.0, student.shape[:2]
    for n in range(samples):
        for c in range(channels):
            own, shown = (distribution(maps[n, c], temperature) for maps in (student, teacher))
            loss += sum(q * math.log(q / p) for p, q in zip(own, shown, strict=True))
    return temperature**2 / (samples * channels) * loss


def test_equals_the_equation_written_as_a_loop_summed_over_levels():
    student, teacher = STUDENT[:2, :3, :3, :2], TEACHER[:2, :3, :3, :2]
    expected = slow(student, teacher, 2.5) + slow(teacher[:, :1], student[:, :1], 2.5)
    levels = (student, teacher[:, :1]), (teacher, student[:, :1])
    assert cwd(*levels, temperature=2.5).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    student = STUDENT[:2, :2, :3, :2].clone().requires_grad_()
    teacher = TEACHER[:2, :2, :3, :2]
    assert torch.autograd.gradcheck(lambda maps: cwd(maps, teacher, temperature=2.0), student)


def test_half_precision_that_overflowed_in_other_code_is_finite():
    student = (60_000 * STUDENT).half().requires_grad_()
    loss = CWD(((6, 8, 8),), ((6, 8, 8),))((student,), ((60_000 * TEACHER).half(),), {})
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_an_aligner_without_bias_stands_only_where_channels_differ():
    criterion = CWD(((4, 8, 8), (6, 8, 8)), ((6, 8, 8), (6, 8, 8)), temperature=3.0).double()
    assert [sum(p.numel() for p in m.parameters()) for m in criterion.aligners] == [4 * 6, 0]
    aligned = nn.functional.conv2d(STUDENT[:, :4], criterion.aligners[0].weight)
    expected = cwd((aligned, STUDENT), (TEACHER, TEACHER), temperature=3.0)
    loss = criterion((STUDENT[:, :4], STUDENT), (TEACHER, TEACHER), {})
    torch.testing.assert_close(loss, expected)


def test_maps_of_other_sizes_are_refused():
    with pytest.raises(UserError, match=r"CWD .* 8x8 and 4x4; tap levels of equal size"):
        CWD(((6, 8, 8),), ((6, 4, 4),))
    with pytest.raises(UserError, match="needs the same shape"):
        cwd(STUDENT, TEACHER[:, :1])
    with pytest.raises(UserError, match="student has 2 maps, teacher 1"):
        cwd((STUDENT, STUDENT), TEACHER)
