import math

import pytest
import torch
from kd_core.criteria.cc import CC, CCNeighbour, cc, cc_neighbour
from kd_core.errors import UserError
from kd_core.testing import signals

STUDENT, TEACHER = signals((4, 6), 0.7, 0.2), signals((4, 6), 0.7, 0.9)


def test_equals_the_value_of_the_authors_code(golden):
    golden(cc(STUDENT, TEACHER), 0.0005804521510857552)
    golden(CC()(STUDENT, TEACHER, {}), 0.0005804521510857552)


def test_the_reduced_form_equals_repdistillers_value(golden):
    golden(cc_neighbour(STUDENT, TEACHER), 0.9973296276201733)


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def slow_kernel(vectors, gamma, order):
    rows = [[value / math.hypot(*row) for value in row] for row in vectors.tolist()]
    table = []
    for x in rows:
        for y in rows:
            product = dot(x, y)
            powers = [(2 * gamma * product) ** p / math.factorial(p) for p in range(order + 1)]
            table.append(math.exp(-2 * gamma) * sum(powers))
    return table


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (0.7, 0), (1.3, 5)])
def test_equals_the_equation_written_as_a_loop(gamma, order):
    kernels = [slow_kernel(side, gamma, order) for side in (STUDENT, TEACHER)]
    expected = sum((s - t) ** 2 for s, t in zip(*kernels, strict=True)) / 16
    assert cc(STUDENT, TEACHER, gamma=gamma, order=order).item() == pytest.approx(expected)
    value = CC(gamma=gamma, order=order)(STUDENT, TEACHER, {})
    assert value.item() == pytest.approx(expected)


def test_a_high_order_is_the_gaussian_kernel_of_unit_vectors():
    def gaussian(rows):
        return (-0.4 * torch.cdist(rows, rows) ** 2).exp()

    student, teacher = (side / side.norm(dim=1, keepdim=True) for side in (STUDENT, TEACHER))
    expected = (gaussian(student) - gaussian(teacher)).square().mean()
    assert cc(STUDENT, TEACHER, order=12).item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_reduced_form_equals_its_equation_written_as_a_loop():
    expected = 0.0
    for i in range(3):
        for d in range(6):
            one, other = (abs(STUDENT[n, d] - TEACHER[n, d]).item() for n in (i, i + 1))
            expected += one * other / 3
    assert cc_neighbour(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", [cc, cc_neighbour])
def test_gradient_is_that_of_finite_differences(loss):
    assert torch.autograd.gradcheck(
        lambda vectors: loss(vectors, TEACHER), STUDENT.clone().requires_grad_()
    )


def test_the_reduced_form_trains_two_embeddings():
    criterion = CCNeighbour(((6,),), ((9,),))
    assert sum(parameter.numel() for parameter in criterion.parameters()) == 7 * 128 + 10 * 128
    teacher = torch.randn(4, 9)
    embedded = criterion.student_embedding(STUDENT.float()), criterion.teacher_embedding(teacher)
    torch.testing.assert_close(criterion(STUDENT.float(), teacher, {}), cc_neighbour(*embedded))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="needs the same shape"):
        cc(STUDENT, TEACHER[:3])
    with pytest.raises(UserError, match="needs the same shape"):
        cc_neighbour(STUDENT, TEACHER[:, :5])
    with pytest.raises(UserError, match="CCNeighbour takes vectors"):
        CCNeighbour(((6, 4, 4),), ((9,),))
