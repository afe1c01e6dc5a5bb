"""Symmetric KD is fast-reid's loss, with its gradient."""

import math

import pytest
import torch
from kd_core.criteria.kd import kd
from kd_core.errors import UserError
from kd_core.testing import check_contract, signals
from kd_reid.criteria.symmetric_kd import SymmetricKD, symmetric_kd

STUDENT, TEACHER = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)


def test_equals_the_value_of_the_authors_code(golden):
    golden(symmetric_kd(STUDENT, TEACHER), 2.001437032572934)
    golden(SymmetricKD()(STUDENT, TEACHER, {}), 2.001437032572934)


def probabilities(row, temperature):
    powers = [math.e ** (value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def logarithm(value):
    return value.log() if isinstance(value, torch.Tensor) else math.log(value)


def slow_symmetric_kd(student, teacher, temperature):
    """Return the equation, image by image; of a tensor with its graph, if the student is one."""
    total = 0.0
    for s, t in zip(student, teacher.tolist(), strict=True):
        sides = probabilities(s, temperature), probabilities(t, temperature)
        for p, q in zip(*sides, strict=True):
            total += q * (math.log(q) - logarithm(p)) + p * (logarithm(p) - math.log(q))
    return total / len(teacher) * temperature**2 / 2


@pytest.mark.parametrize("temperature", [4.0, 16.0])
def test_equals_the_equation_written_as_a_loop(temperature):
    expected = pytest.approx(slow_symmetric_kd(STUDENT.tolist(), TEACHER, temperature), rel=1e-11)
    assert symmetric_kd(STUDENT, TEACHER, temperature=temperature).item() == expected
    assert SymmetricKD(temperature=temperature)(STUDENT, TEACHER, {}).item() == expected


def test_gradient_is_that_of_the_loop_through_both_directions():
    student, looped = (STUDENT.clone().requires_grad_() for _ in range(2))
    symmetric_kd(student, TEACHER).backward()
    slow_symmetric_kd(looped, TEACHER, 16.0).backward()
    assert student.grad.abs().max() > 1e-3
    torch.testing.assert_close(student.grad, looped.grad, rtol=1e-9, atol=1e-12)


def test_keeps_the_contract():
    check_contract(SymmetricKD)


def test_is_the_mean_of_kd_in_both_directions():
    expected = (kd(STUDENT, TEACHER, temperature=3.0) + kd(TEACHER, STUDENT, temperature=3.0)) / 2
    torch.testing.assert_close(symmetric_kd(STUDENT, TEACHER, temperature=3.0), expected)


def test_logits_without_doubt_give_a_finite_loss_and_gradient():
    student = torch.tensor([[0.0, 1e4, 0.0]], requires_grad=True)
    loss = symmetric_kd(student, torch.tensor([[1e4, 0.0, 0.0]]), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert student.grad.isfinite().all()


def test_different_numbers_of_identities_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 751\], teacher \[2, 702\]"):
        symmetric_kd(torch.zeros(2, 751), torch.zeros(2, 702))
