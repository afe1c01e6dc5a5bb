import math

import pytest
import torch
from kd_core.criteria.sp import SP, sp
from kd_core.errors import UserError
from kd_core.testing import signals

FIRST = signals((8, 12, 4, 4), 0.19, 0.5), signals((8, 20, 4, 4), 0.23, 0.6)
SECOND = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)


@pytest.mark.parametrize(
    ("maps", "reference"), [(FIRST, 0.222836904447), (SECOND, 2.481965512439517e-06)]
)
def test_equals_the_value_of_the_authors_code(maps, reference, golden):
    golden(sp(*maps), reference)
    golden(SP()(*((side,) for side in maps), {}), reference)


def slow_similarity(maps):
    rows = [sample.flatten().tolist() for sample in maps]
    table = []
    for x in rows:
        products = [sum(a * b for a, b in zip(x, y, strict=True)) for y in rows]
        table += [product / math.hypot(*products) for product in products]
    return table


def test_equals_the_equation_written_as_a_loop():
    student, teacher = (slow_similarity(side) for side in FIRST)
    expected = sum((t - s) ** 2 for s, t in zip(student, teacher, strict=True)) / 8**2
    assert sp(*FIRST).item() == pytest.approx(expected, rel=1e-12)


def test_levels_are_summed():
    expected = sp(*FIRST) + sp(FIRST[1], FIRST[0])
    torch.testing.assert_close(sp(FIRST, FIRST[::-1]), expected)


def test_gradient_is_that_of_finite_differences():
    student, teacher = (side[:3, :2] for side in SECOND)
    assert torch.autograd.gradcheck(
        lambda maps: sp(maps, teacher), student.clone().requires_grad_()
    )


def test_maps_of_any_scale_and_shape_can_be_compared():
    student, teacher = FIRST[0], SECOND[1].repeat(2, 1, 1, 1)
    assert sp(3 * student, teacher / 7).item() == pytest.approx(sp(student, teacher).item())


def test_a_dead_sample_gives_a_finite_gradient():
    student = FIRST[0].clone()
    student[0] = 0
    student.requires_grad_()
    sp(student, FIRST[1]).backward()
    assert student.grad.isfinite().all()


def test_batches_of_different_sizes_are_refused():
    with pytest.raises(UserError, match="needs the same shape"):
        sp(FIRST[0], FIRST[1][:7])
    with pytest.raises(UserError, match="student has 2 maps, teacher 1"):
        sp(FIRST, FIRST[:1])


def test_vectors_do_as_well_as_maps():
    student, teacher = signals((5, 6), 0.7, 0.2), signals((5, 9), 0.7, 0.9)
    SP().check_shapes(((6,),), ((9,),))
    maps = (student[..., None, None], teacher[..., None, None])
    assert SP()((student,), (teacher,), {}).item() == pytest.approx(sp(*maps).item(), rel=1e-12)
    with pytest.raises(UserError, match=r"tap of the student gives \[N, 6, 3\]"):
        SP().check_shapes(((6, 3),), ((9,),))
