import math

import pytest
import torch
from kd_core.criteria.pkt import PKT, pkt
from kd_core.errors import UserError
from kd_core.testing import signals

FIRST = signals((8, 16), 0.37, 0.2), signals((8, 16), 0.53, 0.9)
SECOND = signals((4, 6), 0.7, 0.2), signals((4, 6), 0.7, 0.9)


@pytest.mark.parametrize(
    ("vectors", "reference"), [(FIRST, 0.044729907645), (SECOND, 0.003119018807522768)]
)
def test_equals_the_value_of_the_authors_code(vectors, reference, golden):
    golden(pkt(*vectors), reference)
    golden(PKT()(*vectors, {}), reference)


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def slow_neighbours(vectors, eps):
    rows = vectors.tolist()
    lengths = [math.hypot(*row) + eps for row in rows]
    table = []
    for x, a in zip(rows, lengths, strict=True):
        cosines = [dot(x, y) / (a * b) for y, b in zip(rows, lengths, strict=True)]
        total = sum((cosine + 1) / 2 for cosine in cosines)
        table += [(cosine + 1) / 2 / total for cosine in cosines]
    return table


@pytest.mark.parametrize("eps", [1e-7, 1e-2])
def test_equals_the_equation_written_as_a_loop(eps):
    student, teacher = (slow_neighbours(side, eps) for side in FIRST)
    pairs = zip(student, teacher, strict=True)
    expected = sum(q * math.log((q + eps) / (p + eps)) for p, q in pairs) / 8**2
    assert pkt(*FIRST, eps=eps).item() == pytest.approx(expected, rel=1e-9)
    assert PKT(eps=eps)(*FIRST, {}).item() == pytest.approx(expected, rel=1e-9)


def test_gradient_is_that_of_finite_differences():
    student, teacher = FIRST[0], SECOND[1].repeat(2, 1)
    assert torch.autograd.gradcheck(
        lambda rows: pkt(rows, teacher), student.clone().requires_grad_()
    )


def test_the_divergence_has_a_direction():
    assert abs(pkt(*FIRST) - pkt(*FIRST[::-1])) > 1e-4


def test_a_nan_is_not_replaced():
    student = FIRST[0].clone()
    student[3, 2] = torch.nan
    assert pkt(student, FIRST[1]).isnan()


def test_a_dead_sample_gives_a_finite_loss_and_gradient():
    student = FIRST[0].clone()
    student[0] = 0
    student.requires_grad_()
    loss = pkt(student, FIRST[1])
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_batches_of_different_sizes_are_refused():
    with pytest.raises(UserError, match="needs the same shape"):
        pkt(FIRST[0], FIRST[1][:7])
