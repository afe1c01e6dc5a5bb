import math

import pytest
import torch
from kd_core.metrics import accuracy, agreement, expected_calibration_error, linear_cka
from kd_core.testing import NoHostReads


def random_logits(size=40, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator)
    return logits, torch.randint(classes, (size,), generator=generator)


@pytest.mark.parametrize(("bins", "golden"), [(10, 0.1492326306566435), (15, 0.49708300888115664)])
def test_calibration_error_equals_the_golden_value(bins, golden):
    k = torch.arange(40, dtype=torch.float64)
    logits = 3 * torch.sin(0.7 * k + 0.3).reshape(4, 10)
    error = expected_calibration_error(logits, torch.tensor([2, 0, 0, 0]), bins=bins)
    assert error.item() == pytest.approx(golden, rel=1e-10)


def slow_calibration_error(logits, label, bins):
    confidence, prediction = logits.softmax(1).max(1)
    total = 0.0
    for m in range(1, bins + 1):
        inside = [n for n in range(len(label)) if (m - 1) / bins < confidence[n] <= m / bins]
        if inside:
            correct = sum(float(prediction[n] == label[n]) for n in inside) / len(inside)
            mean = sum(confidence[n].item() for n in inside) / len(inside)
            total += len(inside) / len(label) * abs(correct - mean)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_equals_the_definition_written_as_a_loop(bins):
    logits, label = random_logits()
    error = expected_calibration_error(logits.double(), label, bins=bins)
    expected = slow_calibration_error(logits.double(), label, bins)
    assert error.item() == pytest.approx(expected, rel=1e-10)


def test_bins_are_closed_at_the_right():
    # Confidence 0.5, wrong, in one bin; 0.6, right, in the next; in one bin they would offset.
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.6, 0.4, 0.0]], dtype=torch.float64).log()
    error = expected_calibration_error(logits, torch.tensor([2, 0]), bins=4)
    assert error.item() == pytest.approx((0.5 + 0.4) / 2)


def test_full_confidence_falls_in_the_last_bin():
    error = expected_calibration_error(torch.tensor([[1e3, 0.0]]), torch.tensor([1]))
    assert error == 1


def test_accuracy_equals_the_definition_written_as_a_loop():
    logits, label = random_logits()
    for k, fraction in zip((1, 3), accuracy(logits, label, topk=(1, 3)), strict=True):
        hits = 0
        for row, wanted in zip(logits.tolist(), label.tolist(), strict=True):
            hits += sum(value > row[wanted] for value in row) < k
        assert fraction.item() == pytest.approx(hits / len(label))


def test_more_places_than_classes_are_all_classes():
    logits, label = random_logits(classes=3)
    assert accuracy(logits, label)[1] == 1


def test_agreement_is_the_fraction_of_equal_predictions():
    student = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 2.0]])
    teacher = torch.tensor([[9.0, 1.0], [0.0, 0.5], [1.0, 4.0], [3.0, 2.0]])
    assert agreement(student, teacher) == 0.5
    assert agreement(student, 7 * student + 1) == 1


def slow_cka(x, y):
    """Through centred Gram matrices, entry by entry."""
    n = len(x)
    grams = [[[float(a @ b) for b in side] for a in side] for side in (x, y)]
    centred = []
    for gram in grams:
        rows, all_ = [sum(row) / n for row in gram], sum(map(sum, gram)) / n**2
        centred.append(
            [[gram[i][j] - rows[i] - rows[j] + all_ for j in range(n)] for i in range(n)]
        )
    k, m = centred

    def inner(a, b):
        return sum(a[i][j] * b[i][j] for i in range(n) for j in range(n))

    return inner(k, m) / math.sqrt(inner(k, k) * inner(m, m))


def test_cka_equals_the_definition_written_as_a_loop():
    x, _ = random_logits(size=9, classes=4, seed=1)
    y, _ = random_logits(size=9, classes=6, seed=2)
    assert linear_cka(x.double(), y.double()).item() == pytest.approx(
        slow_cka(x.double(), y.double()), rel=1e-10
    )


def test_cka_knows_no_rotation_scale_or_shift():
    x, _ = random_logits(size=9, classes=4)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    turned = 3 * x.double() @ rotation + 5
    assert linear_cka(x.double(), turned).item() == pytest.approx(1)


def test_cka_flattens_maps():
    x = torch.randn(6, 2, 3, 3)
    torch.testing.assert_close(linear_cka(x, x.flatten(1)), torch.tensor(1.0))


def test_no_sample_gives_zero():
    logits, label = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    values = (
        *accuracy(logits, label),
        agreement(logits, logits),
        expected_calibration_error(logits, label),
    )
    assert all(value == 0 for value in values)


def test_nothing_is_read_back_and_low_precision_is_taken():
    logits, label = random_logits()
    logits = logits.bfloat16()
    with NoHostReads():
        accuracy(logits, label)
        agreement(logits, logits)
        error = expected_calibration_error(logits, label)
        similarity = linear_cka(logits, logits)
    assert error.dtype == similarity.dtype == torch.float32


def test_a_nan_is_not_hidden():
    logits, label = random_logits()
    logits[3, 2] = torch.nan
    assert expected_calibration_error(logits, label).isnan()
    assert linear_cka(logits, logits).isnan()
