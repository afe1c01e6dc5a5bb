import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.at import AT, at
from kd_core.errors import UserError
from kd_core.testing import signals

STUDENT = signals((8, 6, 8, 8), 0.11, 0.3), signals((8, 12, 4, 4), 0.19, 0.5)
TEACHER = signals((8, 10, 4, 4), 0.17, 0.4), signals((8, 20, 4, 4), 0.23, 0.6)
PAIR = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)


@pytest.mark.parametrize(
    ("student", "teacher", "reference"),
    [(STUDENT, TEACHER, 0.018836970766), (PAIR[:1], PAIR[1:], 0.0003495753685365965)],
)
def test_equals_the_value_of_the_authors_code(student, teacher, reference, golden):
    golden(at(student, teacher), reference)
    golden(AT()(student, teacher, {}), reference)


def slow_attention(sample, p):
    """One sample [C, H, W] in plain Python."""
    channels = [channel.flatten().tolist() for channel in sample]
    powers = [sum(abs(v) ** p for v in place) / len(place) for place in zip(*channels, strict=True)]
    length = sum(value**2 for value in powers) ** 0.5
    return [value / length for value in powers]


@pytest.mark.parametrize("p", [1, 2, 3])
def test_equals_the_equation_written_as_a_loop(p):
    student = F.adaptive_avg_pool2d(STUDENT[0], 4)  # before the power
    expected = 0.0
    for s, t in zip(student, TEACHER[0], strict=True):
        pairs = zip(slow_attention(s, p), slow_attention(t, p), strict=True)
        expected += sum((a - b) ** 2 for a, b in pairs) / (8 * 16)
    assert at(STUDENT[0], TEACHER[0], p=p).item() == pytest.approx(expected, rel=1e-12)
    assert AT(p=p)(STUDENT[:1], TEACHER[:1], {}).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_gradient_is_that_of_finite_differences(p):
    student, teacher = STUDENT[0][:2, :3], TEACHER[0][:2]
    assert torch.autograd.gradcheck(
        lambda maps: at(maps, teacher, p=p), student.clone().requires_grad_()
    )


def test_the_larger_side_is_pooled_whichever_it_is():
    small, large = TEACHER[0], STUDENT[0]
    torch.testing.assert_close(at(small, large), at(large, small))


def test_a_dead_map_gives_a_finite_gradient():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    at(student, TEACHER[0][:2]).backward()
    assert student.grad.isfinite().all()


def test_lists_of_different_lengths_are_refused_and_not_cut():
    with pytest.raises(UserError, match="student has 2 maps, teacher 1"):
        at(STUDENT, TEACHER[1:])
