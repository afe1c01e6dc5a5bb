"""Similarity distillation is its equation, for batches of any size."""

import math

import pytest
import torch
from kd_core.errors import UserError
from kd_core.testing import NoHostReads, check_contract, signals
from kd_reid.criteria.similarity import Similarity, similarity

# Widths differ; neighbours and their order do too.
STUDENT, TEACHER = signals((6, 5), 0.37, 0.2), signals((6, 9), 0.53, 0.9)


def shares(rows, temperature):
    """Return how each row's likeness is shared out among the others; of numbers, or of tensors."""
    table = []
    for i, x in enumerate(rows):
        powers = []
        for j, y in enumerate(rows):
            if i != j:
                product = sum(a * b for a, b in zip(x, y, strict=True))
                lengths = [sum(a * a for a in v) ** 0.5 for v in (x, y)]
                powers.append(math.e ** (product / (lengths[0] * lengths[1]) / temperature))
        table.append([power / sum(powers) for power in powers])
    return table


def slow_similarity(student, teacher, temperature):
    """Return the equation, image by image; of a tensor with its graph, if the student is one."""
    total = 0.0
    pairs = zip(shares(student, temperature), shares(teacher.tolist(), temperature), strict=True)
    for own, shown in pairs:
        for p, q in zip(own, shown, strict=True):
            total += q * (math.log(q) - (p.log() if isinstance(p, torch.Tensor) else math.log(p)))
    return total / len(teacher)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_the_equation_written_as_a_loop(temperature):
    expected = slow_similarity(STUDENT.tolist(), TEACHER, temperature)
    assert expected > 1e-3
    result = similarity(STUDENT, TEACHER, temperature=temperature)
    assert result.item() == pytest.approx(expected, rel=1e-12)
    result = Similarity(temperature=temperature)(STUDENT, TEACHER, {})
    assert result.item() == pytest.approx(expected, rel=1e-12)


def test_temperature_is_a_tenth_unless_said():
    expected = slow_similarity(STUDENT.tolist(), TEACHER, 0.1)
    for loss in (similarity(STUDENT, TEACHER), Similarity()(STUDENT, TEACHER, {})):
        assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_the_loop():
    student, looped = (STUDENT.clone().requires_grad_() for _ in range(2))
    similarity(student, TEACHER).backward()
    slow_similarity(looped, TEACHER, 0.1).backward()
    assert student.grad.abs().max() > 1e-3
    torch.testing.assert_close(student.grad, looped.grad, rtol=1e-9, atol=1e-12)


def test_keeps_the_contract():
    check_contract(Similarity)


def test_only_directions_count():
    lengths = torch.arange(1.0, 7.0, dtype=torch.float64)[:, None]
    loss = similarity(lengths * STUDENT, TEACHER / lengths)
    torch.testing.assert_close(loss, similarity(STUDENT, TEACHER))


def test_an_images_likeness_to_itself_has_no_part():
    # All others are equally far in both networks, but not equally far in the two.
    student, teacher = torch.eye(5), torch.eye(5) + 1
    assert similarity(student, teacher).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("images", [0, 1, 2])
def test_without_a_choice_of_neighbours_the_loss_is_0_with_its_graph(images):
    student = STUDENT[:images].clone().requires_grad_()
    loss = similarity(student, TEACHER[:images])
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_two_images_do_not_hide_a_nan():
    student = STUDENT[:2].clone()
    student[0, 0] = torch.nan
    assert similarity(student, TEACHER[:2]).isnan()


def test_equal_and_dead_images_give_a_finite_loss_and_gradient():
    one_dead = STUDENT.float()
    one_dead[3] = 0
    for student in (torch.ones(6, 5), torch.zeros(6, 5), one_dead):
        student.requires_grad_()
        loss = similarity(student, TEACHER.float())
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()


@pytest.mark.parametrize("images", [0, 1, 2])
def test_small_batches_are_not_read_back(images):
    student = STUDENT[:images].clone().requires_grad_()
    with NoHostReads():
        similarity(student, TEACHER[:images]).backward()


def test_batches_of_different_sizes_are_refused():
    for images in (5, 0):
        with pytest.raises(UserError, match="needs the same shape"):
            similarity(STUDENT, TEACHER[:images])
