"""Cosine is its equation, behind a projector where the widths differ and nowhere else."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.testing import check_contract, signals
from kd_reid.criteria.cosine import Cosine, cosine

STUDENT, TEACHER = signals((4, 6), 0.7, 0.2), signals((4, 6), 0.7, 0.9)
WIDE = signals((4, 9), 0.53, 0.9)


def slow_cosine(student, teacher):
    """Return the equation, image by image; of a tensor with its graph, if the student is one."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        product = sum(a * b for a, b in zip(s, t, strict=True))
        lengths = [sum(a * a for a in v) ** 0.5 for v in (s, t)]
        total += 1 - product / (lengths[0] * lengths[1])
    return total / len(teacher)


def projected(student, weight):
    return [[sum(w * x for w, x in zip(row, s, strict=True)) for row in weight] for s in student]


def test_equals_the_equation_written_as_a_loop():
    expected = pytest.approx(slow_cosine(STUDENT.tolist(), TEACHER.tolist()), rel=1e-12)
    assert cosine(STUDENT, TEACHER).item() == expected
    assert Cosine(((6,),), ((6,),))(STUDENT, TEACHER, {}).item() == expected


def test_other_widths_are_projected_to_the_teachers():
    criterion = Cosine(((6,),), ((9,),)).double()
    weight = criterion.projector.weight
    assert [tuple(p.shape) for p in criterion.parameters()] == [(9, 6)]
    expected = slow_cosine(projected(STUDENT.tolist(), weight.tolist()), WIDE.tolist())
    assert criterion(STUDENT, WIDE, {}).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_the_loop_in_the_projector_too():
    criterion = Cosine(((6,),), ((9,),)).double()
    weight = criterion.projector.weight
    student, looped = (STUDENT.clone().requires_grad_() for _ in range(2))
    criterion(student, WIDE, {}).backward()
    expected = slow_cosine(projected(looped, weight), WIDE.tolist())
    gradients = torch.autograd.grad(expected, (looped, weight))
    for gradient, of_the_loop in zip((student.grad, weight.grad), gradients, strict=True):
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(gradient, of_the_loop, rtol=1e-9, atol=1e-12)


def test_equal_widths_have_no_projector():
    assert not list(Cosine(((6,),), ((6,),)).parameters())


@pytest.mark.parametrize("width", [6, 9])
def test_keeps_the_contract(width):
    check_contract(Cosine, student_shapes=((6,),), teacher_shapes=((width,),))


@pytest.mark.parametrize("width", [6, 9])
def test_only_directions_count(width):
    criterion = Cosine(((6,),), ((width,),)).double()
    teacher, lengths = WIDE[:, :width], torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]
    loss = criterion(lengths * STUDENT, teacher / lengths, {})
    torch.testing.assert_close(loss, criterion(STUDENT, teacher, {}))


def test_is_0_along_the_teacher_and_2_against_it():
    assert cosine(3 * TEACHER, TEACHER).item() == pytest.approx(0, abs=1e-12)
    assert cosine(-TEACHER, TEACHER).item() == pytest.approx(2, abs=1e-12)


def test_a_dead_embedding_counts_as_orthogonal_with_a_finite_gradient():
    student = TEACHER.clone()
    student[1] = 0
    student.requires_grad_()
    loss = cosine(student, TEACHER)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 4)
    assert student.grad.isfinite().all()


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"student is \[4, 6\], teacher \[4, 9\]"):
        cosine(STUDENT, WIDE)
    with pytest.raises(UserError, match=r"student is \[1, 6\], teacher \[4, 6\]"):
        cosine(STUDENT[:1], TEACHER)
    with pytest.raises(UserError, match=r"Cosine takes vectors \[N, D\]"):
        Cosine(((6, 4, 4),), ((6, 4, 4),))
