import math

import pytest
import torch
from kd_core.criteria.dist import DIST, dist
from kd_core.errors import UserError
from kd_core.testing import signals

LOGITS = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ({}, 1.1289698599463267),
        ({"temperature": 4.0}, 12.763411104288416),
        ({"gamma": 0.0}, 0.6042300880308947),
        ({"beta": 0.0}, 0.5247397719154319),
    ],
)
def test_equals_the_value_of_the_authors_code(arguments, reference, golden):
    golden(dist(*LOGITS, **arguments), reference)
    golden(DIST(**arguments)(*LOGITS, {}), reference)


def slow_softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_correlation(a, b):
    a, b = ([x - sum(row) / len(row) for x in row] for row in (a, b))
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / (norms + 1e-8)


def test_equals_the_equation_written_as_a_loop():
    p, q = ([slow_softmax(row, 2.5) for row in side.tolist()] for side in LOGITS)
    samples = [slow_correlation(a, b) for a, b in zip(p, q, strict=True)]
    columns = zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)
    classes = [slow_correlation(a, b) for a, b in columns]
    expected = 2.5**2 * (3 * (1 - sum(samples) / 4) + 2 * (1 - sum(classes) / 10))
    loss = dist(*LOGITS, beta=3.0, gamma=2.0, temperature=2.5)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    student, teacher = LOGITS
    assert torch.autograd.gradcheck(
        lambda logits: dist(logits, teacher), student.clone().requires_grad_()
    )


def test_equal_logits_give_next_to_nothing():
    student = LOGITS[0].clone().requires_grad_()
    loss = dist(student, LOGITS[0])
    loss.backward()
    assert 0 < loss.item() < 1e-4
    assert student.grad.abs().max() < 1e-4


@pytest.mark.parametrize("logits", [torch.zeros(3, 5), torch.zeros(1, 5), torch.eye(1, 5) * 1e6])
def test_probabilities_that_do_not_vary_give_a_finite_gradient(logits):
    student = logits.clone().requires_grad_()
    dist(student, torch.ones(len(logits), 1) * torch.arange(5.0)).backward()
    assert student.grad.isfinite().all()


def test_an_empty_batch_gives_zero_and_one_sample_counts_as_uncorrelated_in_its_classes():
    student, teacher = LOGITS
    assert dist(student[:0], teacher[:0]) == 0
    assert dist(student[:1], teacher[:1], beta=0.0) == 1


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 1\]"):
        dist(torch.zeros(2, 10), torch.zeros(2, 1))
