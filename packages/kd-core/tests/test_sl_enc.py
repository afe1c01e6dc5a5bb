import math

import pytest
import torch
from kd_core.criteria.sl_enc import SoftLabelEncoder, perturbed_soft_label
from kd_core.criteria.soft_label import soft_label
from kd_core.errors import UserError
from kd_core.testing import fill, signals
from torch import nn

STUDENT, TEACHER = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)
PERTURBATION = signals((4, 10), 0.9, 0.4, 2).softmax(1)
NOISE = signals((4, 100), 0.7, 0.5, 1)


@pytest.mark.parametrize(
    ("temperature", "reference"), [(1.0, 2.137259112267671), (3.0, 19.51696437177771)]
)
def test_equals_the_value_of_the_authors_generator_and_soft_label(temperature, reference, golden):
    """Of their two parts, put together as they describe it: their own way of doing it fails."""
    criterion = SoftLabelEncoder(10, temperature=temperature)
    fill(criterion)
    golden(criterion(STUDENT, TEACHER, {"noise": NOISE}).detach(), reference)


def slow_softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def matrix(x, layer):
    """Apply a linear layer by hand."""
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows]


def test_equals_the_equation_written_as_a_loop():
    expected = 0.0
    rows = zip(STUDENT.tolist(), TEACHER.tolist(), PERTURBATION.tolist(), strict=True)
    for s, t, added in rows:
        label = slow_softmax([(a + b) / 2.5 for a, b in zip(t, added, strict=True)])
        predicted = slow_softmax([value / 2.5 for value in s])
        pairs = zip(label, predicted, strict=True)
        expected -= sum(q * math.log(p) for q, p in pairs) * 2.5**2 / 4
    value = perturbed_soft_label(STUDENT, TEACHER, PERTURBATION, temperature=2.5)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_gradients_are_those_of_finite_differences_and_none_is_the_teacher_s():
    student, perturbation = (x.clone().requires_grad_() for x in (STUDENT, PERTURBATION))
    teacher = TEACHER.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, added: perturbed_soft_label(s, TEACHER, added, temperature=2.0),
        (student, perturbation),
    )
    perturbed_soft_label(student, teacher, perturbation).backward()
    assert teacher.grad is None


def test_an_equal_perturbation_of_all_classes_changes_nothing():
    value = perturbed_soft_label(STUDENT, TEACHER, torch.full_like(TEACHER, 0.1))
    torch.testing.assert_close(value, soft_label(STUDENT, TEACHER))


def test_the_generator_is_linear_relu_batch_norm_linear_softmax():
    criterion = SoftLabelEncoder(10, temperature=3.0)
    fill(criterion)
    first, last = (m for m in criterion.generator if isinstance(m, nn.Linear))
    assert (first.in_features, first.out_features, last.out_features) == (100, 50, 10)
    hidden = [[max(v, 0) for v in matrix(x, first)] for x in NOISE.tolist()]
    for column in range(50):
        values = [row[column] for row in hidden]
        mean = sum(values) / 4
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 4 + 1e-5)
        for row in hidden:
            row[column] = (row[column] - mean) / deviation
    made = torch.tensor([slow_softmax(matrix(x, last)) for x in hidden], dtype=torch.float64)
    loss = criterion(STUDENT, TEACHER, {"noise": NOISE})
    expected = perturbed_soft_label(STUDENT, TEACHER, made, temperature=3.0)
    torch.testing.assert_close(loss, expected)


def test_the_generator_learns_from_the_loss():
    criterion = SoftLabelEncoder(10).double()
    criterion(STUDENT, TEACHER, {"noise": NOISE}).backward()
    first, last = (m for m in criterion.generator if isinstance(m, nn.Linear))
    assert first.weight.grad.abs().sum() > 0
    assert last.weight.grad.abs().sum() > 0


class Seen(nn.Module):
    """Takes the place of the generator, and keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.noise = []

    def forward(self, noise):
        self.noise.append(noise)
        return noise[:, :10]


def test_normal_noise_is_drawn_for_every_image_and_step():
    torch.manual_seed(0)
    criterion, logits = SoftLabelEncoder(10), torch.zeros(200, 10)
    criterion.generator = Seen()
    criterion(logits, logits, {})
    criterion(logits, logits, {})
    first, second = criterion.generator.noise
    assert first.shape == (200, 100)
    assert first.mean().item() == pytest.approx(0, abs=0.03)
    assert first.std().item() == pytest.approx(1, abs=0.03)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_of_one_image_or_none_has_statistics_too(count):
    criterion, logits = SoftLabelEncoder(10), STUDENT[:count].float().requires_grad_()
    loss = criterion(logits, TEACHER[:count].float(), {})
    loss.backward()
    assert loss.isfinite()
    assert all(state.isfinite().all() for state in criterion.state_dict().values())


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[4, 10\], teacher \[4, 9\]"):
        perturbed_soft_label(STUDENT, TEACHER[:, :9], PERTURBATION)
    with pytest.raises(UserError, match=r"student is \[4, 10\], teacher \[4, 9\]"):
        perturbed_soft_label(STUDENT, TEACHER, PERTURBATION[:, :9])
