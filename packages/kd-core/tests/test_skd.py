import math

import pytest
import torch
from kd_core.criteria.kd import kd
from kd_core.criteria.skd import SKD, skd
from kd_core.errors import UserError
from kd_core.functional import kept_shares
from kd_core.testing import signals

LOGITS = signals((8, 10), 0.7, 0.1, 3), signals((8, 10), 1.3, 0.5, 3)


@pytest.mark.parametrize(
    ("ridge", "reference"), [(0.1, 0.491508942879), (1e-3, 3.37830264066), (1e-6, 9.71409330506)]
)
def test_equals_the_value_of_the_authors_code(ridge, reference, golden):
    golden(skd(*LOGITS, ridge=ridge), reference)


def test_module_equals_the_weighted_sum_of_the_authors_code(golden):
    golden(0.9 * SKD()(*LOGITS, {}), 1.918362096802 + 0.221179024296)
    golden(0.9 * SKD(direction_weight=0.0)(*LOGITS, {}), 1.918362096802)


def test_module_weights_each_part_by_the_share_that_the_masks_keep():
    student, teacher = LOGITS[0][:5], LOGITS[1][:5]  # 3 of 5 samples
    expected = 0.6 * kd(student, teacher, temperature=2.0)
    expected += 7.0 * 0.5 * skd(student, teacher, ridge=0.01)
    loss = SKD(temperature=2.0, ridge=0.01, direction_weight=7.0)(student, teacher, {})
    torch.testing.assert_close(loss, expected)


def slow_cosines(rows):
    units = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in units] for a in units]


def test_equals_the_equation_written_as_a_loop():
    s, t = (slow_cosines(side.tolist()) for side in LOGITS)
    n = range(8)
    rows = [[(s[i][j] - t[i][j]) / 10 for j in n] for i in n]
    means = [sum(row[j] for row in rows) / 8 for j in n]
    covariance = [
        [sum((row[i] - means[i]) * (row[j] - means[j]) for row in rows) / 7 for j in n] for i in n
    ]
    ridge = 0.02 * torch.eye(8, dtype=torch.float64)
    inverse = (torch.tensor(covariance, dtype=torch.float64) + ridge).inverse().tolist()
    squares = [sum(row[i] * inverse[i][j] * row[j] for i in n for j in n) for row in rows]
    expected = sum(math.sqrt(square) for square in squares) / 8
    assert skd(*LOGITS, ridge=0.02).item() == pytest.approx(expected, rel=1e-9)


def test_gradient_is_that_of_finite_differences():
    student, teacher = LOGITS
    assert torch.autograd.gradcheck(
        lambda logits: skd(logits, teacher, ridge=1e-3), student.clone().requires_grad_()
    )


def test_equal_logits_and_single_samples_give_zero_with_a_finite_gradient():
    student = LOGITS[0].clone().requires_grad_()
    for loss in (skd(student, LOGITS[0]), skd(student[:1], LOGITS[1][:1])):
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert student.grad.isfinite().all()


def test_at_usual_sizes_the_default_ridge_makes_a_euclidean_distance():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(64, 100, generator=generator) for _ in range(2))
    unit = [torch.nn.functional.normalize(logits) for logits in (student, teacher)]
    difference = (unit[0] @ unit[0].T - unit[1] @ unit[1].T) / 100
    euclidean = difference.norm(dim=1).mean() / math.sqrt(0.1)
    assert skd(student, teacher).item() == pytest.approx(euclidean.item(), rel=1e-3)
    assert skd(student, teacher, ridge=1e-6) < 0.5 * euclidean * math.sqrt(0.1 / 1e-6)


@pytest.mark.parametrize("ridge", [0.0, -0.1])
def test_a_ridge_that_leaves_no_inverse_is_refused(ridge):
    with pytest.raises(UserError, match=f"ridge is {ridge}, but must be positive"):
        skd(*LOGITS, ridge=ridge)


def shares(rows):
    logits = torch.tensor(rows, dtype=torch.float64).log()
    return [share.item() for share in kept_shares(logits)]


def test_shares_are_those_of_values_up_to_the_median():
    rows = [[0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.9, 0.06, 0.04], [0.1, 0.8, 0.1]]
    assert shares(rows) == pytest.approx([3 / 5, 2 / 3])
    assert shares(rows[:4]) == pytest.approx([2 / 4, 2 / 3])
    assert shares(rows[:1]) == pytest.approx([1, 2 / 3])


def test_shares_are_larger_where_values_are_equal():
    sure, unsure = [0.7, 0.2, 0.1], [0.4, 0.35, 0.25]
    assert shares([unsure, unsure, unsure, sure])[0] == pytest.approx(3 / 4)
    assert shares([sure, unsure, sure, sure])[0] == pytest.approx(1)
    assert shares([[0.2, 0.4, 0.4]])[1] == pytest.approx(1)


def test_shares_of_an_empty_batch_are_finite():
    assert [share.item() for share in kept_shares(torch.zeros(0, 3))] == [0, 1]
