import math
from itertools import combinations, permutations

import pytest
import torch
from kd_core.errors import UserError
from kd_core.metrics import (
    accuracy,
    agreement,
    average_precision,
    calibration_bins,
    expected_calibration_error,
    label_f1,
    linear_cka,
    minibatch_cka,
    noise_unevenness,
    unbiased_hsic,
)
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


def test_bins_of_a_reliability_diagram_are_sums_over_their_samples():
    probability = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9]], dtype=torch.float64)
    found = calibration_bins(probability.log(), torch.tensor([0, 1, 1]), bins=4)
    assert found.size.tolist() == [0, 0, 2, 1]
    assert found.confidence.tolist() == pytest.approx([0, 0, 1.3, 0.9])
    assert found.correct.tolist() == [0, 0, 1, 1]


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cka_of_constant_features_is_nan_whatever_their_rounding(dtype):
    row, (x, _) = torch.randn(1, 5, dtype=dtype), random_logits(size=7)
    constant = row.expand(7, 5) * (1 + torch.finfo(dtype).eps * torch.arange(7)[:, None])
    assert linear_cka(row.expand(7, 5), row.expand(7, 5)).isnan()
    assert linear_cka(constant, constant).isnan()
    assert linear_cka(constant, x.to(dtype)).isnan()


def test_cka_flattens_maps():
    x = torch.randn(6, 2, 3, 3)
    torch.testing.assert_close(linear_cka(x, x.flatten(1)), torch.tensor(1.0))


def slow_unbiased_hsic(k, m):
    """The U-statistic: over all quadruples of different samples."""
    quadruples = list(permutations(range(len(k)), 4))
    total = sum(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in quadruples)
    return total.item() / len(quadruples)


def test_unbiased_hsic_equals_the_definition_written_as_a_loop():
    x, y = (random_logits(size=7, classes=4, seed=seed)[0].double() for seed in (1, 2))
    k, m = x @ x.T, y @ y.T
    assert unbiased_hsic(k, m).item() == pytest.approx(slow_unbiased_hsic(k, m), rel=1e-9)


def slow_unbiased_cka(x, y):
    k, m = x @ x.T, y @ y.T
    norm = math.sqrt(slow_unbiased_hsic(k, k) * slow_unbiased_hsic(m, m))
    return slow_unbiased_hsic(k, m) / norm


def layers(size, seed):
    """Features of two layers, with something in common between all seeds, far from zero."""
    shared = random_logits(size, classes=3)[0].double()
    own = random_logits(size, classes=5, seed=seed)[0].double()
    return [torch.cat([shared, own], 1) + 50, torch.cat([own, shared.square()], 1).view(size, 2, 4)]


def test_batched_cka_of_one_batch_is_that_of_the_whole_set_for_all_pairs_of_layers():
    student, teacher = layers(7, seed=1), layers(7, seed=2)[:1]
    found = minibatch_cka([(student, teacher)])
    assert found.shape == (2, 1)
    for value, layer in zip(found[:, 0].tolist(), student, strict=True):
        expected = slow_unbiased_cka(layer.flatten(1), teacher[0])
        assert value == pytest.approx(expected, rel=1e-6)


def test_features_far_from_zero_lose_no_digits():
    x, y = (random_logits(20, classes=4, seed=seed)[0].float() for seed in (1, 2))
    exact = minibatch_cka([([x.double()], [y.double()])])
    shifted = minibatch_cka([([x + 10_000], [y + 10_000])])
    torch.testing.assert_close(shifted, exact, rtol=1e-2, atol=1e-3)


def test_batches_tell_what_the_whole_set_tells():
    # Averaged over all subsets of a size, a U-statistic is that of the whole set.
    student, teacher = layers(8, seed=1), layers(8, seed=2)
    subsets = [list(chosen) for chosen in combinations(range(8), 5)]
    batches = [([x[s] for x in student], [y[s] for y in teacher]) for s in subsets]
    whole = minibatch_cka([(student, teacher)])
    torch.testing.assert_close(minibatch_cka(iter(batches)), whole)
    assert not torch.allclose(minibatch_cka(batches[:1]), whole, rtol=1e-2)


def test_batched_cka_does_not_rise_where_features_outnumber_samples():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 64, 4096, generator=generator)
    assert linear_cka(x, y) > 0.9
    assert minibatch_cka([([x], [y])]).abs() < 0.1
    torch.testing.assert_close(minibatch_cka([([x], [3 * x + 5])]), torch.ones(1, 1).double())


def test_batches_of_fewer_than_four_samples_are_left_out():
    student, teacher = layers(8, seed=1), layers(8, seed=2)
    short = ([x[:3] for x in student], [y[:3] for y in teacher])
    whole = minibatch_cka([(student, teacher)])
    torch.testing.assert_close(minibatch_cka([short, (student, teacher), short]), whole)
    with pytest.raises(UserError, match="4 samples at least"):
        minibatch_cka([short])


def test_longer_batches_count_more():
    x, y = layers(12, seed=1)[0] - 50, layers(12, seed=2)[0] - 50
    parts = [(x[:4], y[:4]), (x[4:], y[4:])]

    def joined(*weights):
        sums = torch.zeros(3, dtype=torch.float64)
        for (a, b), weight in zip(parts, weights, strict=True):
            pairs = ((a, b), (a, a), (b, b))
            values = [unbiased_hsic(left @ left.T, right @ right.T) for left, right in pairs]
            sums += weight * torch.stack(values)
        return (sums[0] / (sums[1] * sums[2]).sqrt()).item()

    found = minibatch_cka([([a], [b]) for a, b in parts]).item()
    assert found == pytest.approx(joined(4, 8), rel=1e-6)
    assert found != pytest.approx(joined(1, 1), rel=1e-2)


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        ([0.7, 0.1, 0.1, 0.1], 0.0),
        ([0.1, 0.2, 0.0, 0.7], 0.2),  # against 0.1 each: 0 + 0.1 + 0.1
        ([0.4, 0.4, 0.1, 0.1], 0.4),  # of equals one is the prediction: 0.2 + 0.1 + 0.1
        ([0.4, 0.6], 0.0),  # nothing to be uneven
    ],
)
def test_noise_is_uneven_by_hand(probability, expected):
    logits = torch.tensor([probability], dtype=torch.float64).log()
    assert noise_unevenness(logits).item() == pytest.approx(expected, abs=1e-12)
    two = torch.cat([logits, torch.zeros_like(logits)])  # the second is even
    assert noise_unevenness(two).item() == pytest.approx(expected / 2, abs=1e-12)


def test_one_class_has_no_noise():
    assert noise_unevenness(torch.randn(3, 1)) == 0


def test_no_sample_gives_zero():
    logits, label = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    values = (
        *accuracy(logits, label),
        agreement(logits, logits),
        expected_calibration_error(logits, label),
        noise_unevenness(logits),
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
        minibatch_cka([([logits], [logits])])
        noise = noise_unevenness(logits)
    assert error.dtype == similarity.dtype == noise.dtype == torch.float32


def test_a_nan_is_not_hidden():
    logits, label = random_logits()
    logits[3, 2] = torch.nan
    assert expected_calibration_error(logits, label).isnan()
    assert noise_unevenness(logits).isnan()
    assert linear_cka(logits, logits).isnan()
    assert minibatch_cka([([logits], [logits])]).isnan()


class TestSeveralLabels:
    @pytest.fixture
    def given(self):
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(40, 6, generator=generator)
        scores[:, 1] = scores[:, 1].round()  # ties
        label = (torch.rand(40, 6, generator=generator) < 0.3).float()
        label[:, 5] = 0
        return scores, label

    def test_average_precision_is_scikit_learns(self, given):
        # average_precision_score(label[:, place], scores[:, place]) of scikit-learn 1.7
        expected = [0.289934499774, 0.380500821018, 0.631331726058, 0.108418902774, 0.278751237881]
        found = average_precision(*given)
        assert found[:5].tolist() == pytest.approx(expected, rel=1e-10)
        assert found[5].isnan()

    @pytest.mark.parametrize("unknown", [-1.0, torch.nan])
    def test_unknown_labels_are_as_if_they_were_not_there(self, given, unknown):
        scores, label = given
        label[20:] = unknown
        found = average_precision(scores, label)[:5]
        torch.testing.assert_close(found, average_precision(scores[:20], label[:20])[:5])
        pair = label_f1(scores, label), label_f1(scores[:20], label[:20])
        torch.testing.assert_close(*pair)

    def test_f1_of_classes_and_of_all_labels(self):
        logits = torch.tensor([[1.0, 1, -1, 1], [1, -1, -1, -1], [1, 1, -1, -1]])
        label = torch.tensor([[1.0, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]])
        precision = (2 / 3 + 1 / 2 + 0) / 3  # of the three classes that occur
        recall = (1 + 1 / 2 + 0) / 3
        by_class, overall = label_f1(logits, label)
        assert by_class.item() == pytest.approx(2 * precision * recall / (precision + recall))
        assert overall.item() == pytest.approx(2 * 3 / (6 + 6))

    def test_no_image_and_no_right_label_are_numbers_or_nothing(self):
        assert average_precision(torch.zeros(0, 3), torch.zeros(0, 3)).isnan().all()
        by_class, overall = label_f1(-torch.ones(2, 3), torch.ones(2, 3))
        assert by_class == overall == 0
