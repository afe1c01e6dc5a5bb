import math
import statistics

import pytest
import torch
from kd_core.criteria.pkd import PKD, channel_statistics, pkd
from kd_core.errors import UserError
from kd_core.testing import signals
from torch import nn

STUDENT, TEACHER = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)


@pytest.mark.parametrize(
    ("shape", "reference"),
    [((4, 6, 8, 8), 0.1220020064670793), ((4, 6, 4, 4), 0.9959921784415794)],
    ids=["same size", "resized"],
)
def test_equals_the_value_of_the_authors_code(shape, reference, golden):
    golden(pkd(signals(shape, 0.7, 0.3), TEACHER), reference)


def slow(student, teacher):
    """Half the mean squared difference of what has mean 0 and deviation 1 in each channel."""
    squares = []
    for channel in range(student.shape[1]):
        sides = [maps[:, channel].flatten().tolist() for maps in (student, teacher)]
        sides = [
            [(x - statistics.mean(side)) / (statistics.stdev(side) + 1e-6) for x in side]
            for side in sides
        ]
        squares += [(s - t) ** 2 for s, t in zip(*sides, strict=True)]
    return statistics.mean(squares) / 2


def test_equals_the_equation_written_as_a_loop_summed_over_levels():
    student, teacher = STUDENT[:2, :2, :3, :2], TEACHER[:2, :2, :3, :2].square()
    levels = (student, -teacher), (teacher, student)
    expected = slow(student, teacher) + slow(-teacher, student)
    assert pkd(*levels).item() == pytest.approx(expected, rel=1e-12)
    assert pkd(student, teacher) == pkd((student,), (teacher,))


def test_is_one_minus_the_correlation():
    student, teacher = STUDENT[:2, :1], TEACHER[:2, :1].square()
    sides = [maps.flatten().tolist() for maps in (student, teacher)]
    count = student.numel()
    expected = (1 - statistics.correlation(*sides)) * (count - 1) / count
    assert pkd(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_neither_scale_nor_mean_of_a_channel_matters():
    scale, mean = signals((2, 1, 6, 1, 1), 0.7, 0.3) + 1.5
    torch.testing.assert_close(
        pkd(STUDENT * scale + mean, TEACHER), pkd(STUDENT, TEACHER), rtol=1e-4, atol=0
    )


def test_gradient_is_that_of_finite_differences():
    student = STUDENT[:2, :2, :2, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: pkd(maps, TEACHER[:2, :2, :4, :4]), student)


@pytest.mark.parametrize("samples", [0, 1, 3])
def test_a_channel_of_one_value_is_as_it_should_be(samples):
    student = torch.ones(samples, 2, 1, 1, requires_grad=True)
    loss = pkd(student, torch.arange(2.0 * samples).view(samples, 2, 1, 1))
    loss.backward()
    # Against a standardised teacher, whose squares sum up to the number of values minus one.
    assert loss.item() == pytest.approx(max(samples - 1, 0) / max(samples, 1) / 2, rel=1e-5)
    assert student.grad.isfinite().all()


def test_the_deviation_is_unbiased_and_0_of_one_value():
    deviation, mean = channel_statistics(STUDENT)
    assert deviation[0, 3].item() == pytest.approx(
        statistics.stdev(STUDENT[:, 3].flatten().tolist())
    )
    assert mean[0, 3].item() == pytest.approx(statistics.mean(STUDENT[:, 3].flatten().tolist()))
    deviation, mean = channel_statistics(torch.full((1, 1, 1, 1), 5.0))
    assert (deviation.item(), mean.item()) == (0, 5)


def test_an_aligner_without_bias_stands_only_where_channels_differ():
    criterion = PKD(((4, 8, 8), (6, 4, 4)), ((6, 8, 8), (6, 8, 8))).double()
    assert [sum(p.numel() for p in m.parameters()) for m in criterion.aligners] == [4 * 6, 0]
    student = STUDENT[:, :4], STUDENT[:, :, :4, :4]
    aligned = nn.functional.conv2d(student[0], criterion.aligners[0].weight)
    expected = pkd((aligned, student[1]), (TEACHER, TEACHER))
    torch.testing.assert_close(criterion(student, (TEACHER, TEACHER), {}), expected)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="student has 2 maps, teacher 1"):
        pkd((STUDENT, STUDENT), TEACHER)
    with pytest.raises(UserError, match="needs the same shape"):
        pkd(STUDENT[:, :1], TEACHER)
    with pytest.raises(UserError, match="PKD takes maps"):
        PKD(((10,),), ((10,),))


def test_half_precision_does_not_lose_the_statistics():
    halves = [(100 + maps).half() for maps in (STUDENT, TEACHER)]
    loss = PKD(((6, 8, 8),), ((6, 8, 8),))(*[(half,) for half in halves], {})
    assert loss.dtype == torch.float32
    assert math.isclose(loss, pkd(*[half.double() for half in halves]), rel_tol=1e-4)
