import math

import pytest
import torch
from kd_core.criteria.kdsvd import KDSVD, kdsvd
from kd_core.errors import UserError
from kd_core.testing import HostReadError, NoHostReads, signals


def two_waves(shape, frequency, phase, other):
    return signals(shape, frequency, phase) + signals(shape, *other, 0.3)


STUDENT = (
    two_waves((8, 6, 8, 8), 0.11, 0.3, (1.7, 0.2)),
    two_waves((8, 12, 4, 4), 0.19, 0.5, (2.1, 0.2)),
)
TEACHER = (
    two_waves((8, 10, 8, 8), 0.17, 0.4, (1.9, 0.1)),
    two_waves((8, 20, 4, 4), 0.23, 0.6, (2.3, 0.3)),
)
# What the SVD of the reference's machine gave: for each sample, whether the largest components of
# the teacher's vectors at the two levels had the same sign (1) or not (-1).
SIGNS_OF_THE_REFERENCE = (1, -1, -1, -1, -1, 1, 1, 1)


def vectors(sample, count):
    """Right singular vectors, as lists, and singular values of one map [C, H, W]."""
    _, values, rows = torch.linalg.svd(sample.reshape(-1, sample.shape[-1]), full_matrices=False)
    found = rows.tolist()[:count]
    signs = [math.copysign(1, max(vector, key=abs)) for vector in found]
    positive = [[s * x for x in vector] for s, vector in zip(signs, found, strict=True)]
    return positive, values.tolist()[:count]


def slow_level(student, teacher, k):
    """The k vectors of each side, aligned and scaled, of one sample at one level."""
    candidates, _ = vectors(student, k + 3)
    wanted, values = vectors(teacher, k)
    pairs = []
    for vector, value in zip(wanted, values, strict=True):
        cosines = [sum(a * b for a, b in zip(c, vector, strict=True)) for c in candidates]
        best = max(range(len(cosines)), key=lambda i: abs(cosines[i]))
        factor = value / math.hypot(*values)
        sign = math.copysign(factor, cosines[best])
        pairs.append(([sign * x for x in candidates[best]], [factor * x for x in vector]))
    return pairs


def slow_kdsvd(students, teachers, k=1, signs=None):
    """All in plain Python, from the equations; the signs are the teacher's at the second level."""
    total = 0.0
    for n in range(len(students[0])):
        before, after = (slow_level(s[n], t[n], k) for s, t in zip(students, teachers, strict=True))
        sign = signs[n] if signs else 1
        for (s0, t0), (s1, t1) in zip(before, after, strict=True):
            for i in range(len(s1)):
                for j in range(len(s0)):
                    one = math.exp(-((sign * s1[i] - s0[j]) ** 2) / 8)
                    other = math.exp(-((sign * t1[i] - t0[j]) ** 2) / 8)
                    total += (one - other) ** 2 / len(students[0])
    return total


def test_the_equation_with_the_references_signs_has_the_references_value(golden):
    # The reference takes the signs that its SVD happens to give, ours are a convention: so its
    # number is held against the loop, and the loop with our signs against ours.
    golden(slow_kdsvd(STUDENT, TEACHER, signs=SIGNS_OF_THE_REFERENCE), 0.000212513081606)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_equals_the_equation_written_as_a_loop(k):
    expected = slow_kdsvd(STUDENT, TEACHER, k)
    assert kdsvd(STUDENT, TEACHER, k=k).item() == pytest.approx(expected, rel=1e-9)
    assert KDSVD(k=k)(STUDENT, TEACHER, {}).item() == pytest.approx(expected, rel=1e-9)


def test_the_student_may_have_the_teachers_vector_in_fourth_place_and_not_further_down():
    for width, found in ((4, True), (5, False)):
        strengths = torch.arange(1.0, width + 1)
        teacher, student = (torch.diag(x)[None, None] for x in (strengths, strengths.flip(0)))
        loss = kdsvd((student, student), (teacher, teacher))
        assert (loss < 1e-6) == found


def test_more_levels_are_more_pairs():
    student, teacher = ((*side, side[0]) for side in (STUDENT, TEACHER))
    pairs = [kdsvd(student[i : i + 2], teacher[i : i + 2]) for i in (0, 1)]
    torch.testing.assert_close(kdsvd(student, teacher), sum(pairs))


def test_gradient_is_that_of_finite_differences():
    student = tuple(maps[:2, :2].clone().requires_grad_() for maps in STUDENT)
    teacher = tuple(maps[:2] for maps in TEACHER)
    assert torch.autograd.gradcheck(lambda *maps: kdsvd(maps, teacher), student, atol=1e-7)


def test_the_sign_of_the_maps_does_not_matter():
    turned = (-TEACHER[0], TEACHER[1])
    torch.testing.assert_close(kdsvd(STUDENT, turned), kdsvd(STUDENT, TEACHER))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("maps", ["equal values", "one value", "dead"])
def test_equal_singular_values_give_a_finite_gradient(maps, dtype):
    sample = {
        "equal values": torch.eye(4),
        "one value": torch.ones(4, 4),
        "dead": torch.zeros(4, 4),
    }
    student = sample[maps].to(dtype).expand(2, 3, 4, 4).clone().requires_grad_()
    teacher = TEACHER[1][:2].to(dtype)
    loss = kdsvd((student, student), (teacher, teacher))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_neither_replaced_nor_an_error_of_the_solver(bad):
    student = STUDENT[0].clone()
    student[0, 0, 0, 0] = bad
    assert kdsvd((student, STUDENT[1]), TEACHER).isnan()


def test_one_level_and_different_widths_are_refused():
    with pytest.raises(UserError, match="tap two maps of each network at least"):
        kdsvd(STUDENT[:1], TEACHER[:1])
    narrow = ((8, 4, 4), (16, 2, 2)), ((8, 8, 8), (16, 4, 4))
    with pytest.raises(UserError, match=r"the student's are \[4, 2\] and the teacher's \[8, 4\]"):
        KDSVD().check_shapes(*narrow)
    with pytest.raises(UserError, match="tap two maps of each network at least"):
        KDSVD().check_shapes(*(side[:1] for side in narrow))


def test_the_host_read_of_which_it_is_exempt_is_the_solvers_own():
    with pytest.raises(HostReadError, match="_linalg_eigh"), NoHostReads():
        kdsvd(STUDENT, TEACHER)
