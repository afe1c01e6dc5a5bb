import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.fsp import FSP, fsp
from kd_core.errors import UserError
from kd_core.testing import signals

STUDENT = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 12, 4, 4), 0.7, 0.5)
TEACHER = signals((4, 6, 8, 8), 0.7, 0.8), signals((4, 12, 4, 4), 0.7, 1.0)


def test_equals_the_value_of_the_authors_code(golden):
    golden(fsp(STUDENT, TEACHER), 6.0506616526037647e-05)
    golden(FSP()(STUDENT, TEACHER, {}), 6.0506616526037647e-05)


def slow_flow(shallow, deep):
    """One sample: the mean product of every two channels, in plain Python."""
    shallow, deep = ([c.flatten().tolist() for c in maps] for maps in (shallow, deep))
    return [sum(x * y for x, y in zip(a, b, strict=True)) / len(a) for a in shallow for b in deep]


def test_equals_the_equation_written_as_a_loop_summed_over_consecutive_pairs():
    sizes = (3, 4), (2, 4), (4, 2)  # channels and side
    student, teacher = (
        [signals((2, c, side, side), w + c, w) for c, side in sizes] for w in (0.3, 0.8)
    )
    expected = 0.0
    for i in range(2):
        values = []
        for n in range(2):
            flows = []
            for maps in (student, teacher):
                shallow = F.adaptive_avg_pool2d(maps[i][n], sizes[i + 1][1])
                flows.append(slow_flow(shallow, maps[i + 1][n]))
            values += [(a - b) ** 2 for a, b in zip(*flows, strict=True)]
        expected += sum(values) / len(values)
    assert fsp(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    teacher = [maps[:2, :2] for maps in TEACHER]
    student = [maps[:2, :2].clone().requires_grad_() for maps in STUDENT]
    assert torch.autograd.gradcheck(lambda a, b: fsp((a, b), teacher), student)


def test_maps_may_have_other_sizes_than_the_teachers():
    teacher = torch.randn(4, 6, 16, 16), torch.randn(4, 12, 6, 5)
    assert fsp([maps.float() for maps in STUDENT], teacher) > 0


def test_one_level_has_no_flow_and_is_refused():
    with pytest.raises(UserError, match="tap two at least"):
        fsp(STUDENT[0], TEACHER[0])
    with pytest.raises(UserError, match="tap two at least"):
        FSP().check_shapes(((4, 8, 8),), ((4, 8, 8),))


def test_channels_that_differ_are_refused_at_construction_with_what_would_do():
    message = r"student's levels have \[16, 16\], the teacher's \[16, 32\].*one family and width"
    with pytest.raises(UserError, match=message):
        FSP().check_shapes(((16, 8, 8), (16, 4, 4)), ((16, 8, 8), (32, 4, 4)))
    with pytest.raises(UserError, match="needs the same shape"):
        fsp(STUDENT, (TEACHER[0], TEACHER[1][:, :6]))
