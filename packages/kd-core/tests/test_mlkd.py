import math
from statistics import median

import pytest
import torch
from kd_core.criteria.kd import kd
from kd_core.criteria.mlkd import MLKD, batch_correlation, class_correlation
from kd_core.errors import UserError
from kd_core.testing import signals
from kd_core.testing.golden_inputs import normal, value_and_gradients

LOGITS = signals((8, 10), 0.7, 0.1, 3), signals((8, 10), 1.3, 0.5, 3)
STRONG = signals((8, 10), 0.9, 0.4, 2), signals((8, 10), 1.1, 0.2, 3)
VIEWS = tuple(torch.cat(pair) for pair in zip(LOGITS, STRONG, strict=True))
AUTHORS = (4.0, 3.0, 5.0, 2.0, 6.0)


def test_correlations_equal_the_values_of_the_reference(golden):
    golden(class_correlation(*LOGITS, temperature=4.0), 0.0139000089606)
    golden(batch_correlation(*LOGITS, temperature=4.0), 0.00143408897392)


def test_module_equals_the_sum_of_the_three_parts_of_the_reference(golden):
    golden(0.5 * MLKD()(*LOGITS, {}), 2.981459572526 + 0.024210922253 + 0.003838753960)


def slow_softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_gram(rows):
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


def slow_distance(first, second):
    rows = zip(slow_gram(first), slow_gram(second), strict=True)
    return sum((x - y) ** 2 for a, b in rows for x, y in zip(a, b, strict=True)) / len(first)


def slow_correlations(student, teacher, temperature):
    """Those of samples and those of classes."""
    p, q = ([slow_softmax(row, temperature) for row in x.tolist()] for x in (student, teacher))
    columns = [list(zip(*rows, strict=True)) for rows in (p, q)]
    return slow_distance(p, q), slow_distance(*columns)


def slow_shares(teacher):
    """Shares of samples and of classes up to the median."""
    rows = [slow_softmax(row, 1.0) for row in teacher.tolist()]
    for values in (list(map(max, rows)), [sum(column) for column in zip(*rows, strict=True)]):
        yield sum(value <= median(values) for value in values) / len(values)


def slow_mlkd(student, teacher, temperatures):
    samples, classes = slow_shares(teacher)
    total = 0.0
    for t in temperatures:
        of_samples, of_classes = slow_correlations(student, teacher, t)
        total += samples * (kd(student, teacher, temperature=t).item() + of_samples)
        total += classes * of_classes
    return total


@pytest.mark.parametrize("number", [8, 3])  # of samples: with 3, not all pairs of classes meet
def test_correlations_equal_the_equation_written_as_a_loop(number):
    logits = [side[:number] for side in LOGITS]
    samples, classes = slow_correlations(*logits, 2.5)
    assert batch_correlation(*logits, temperature=2.5).item() == pytest.approx(samples, rel=1e-9)
    assert class_correlation(*logits, temperature=2.5).item() == pytest.approx(classes, rel=1e-9)


def test_correlations_of_classes_keep_no_table_of_all_pairs_of_classes():
    student, teacher = torch.randn(4, 500, requires_grad=True), torch.randn(4, 500)
    kept = []
    keep = torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    )
    with keep:
        class_correlation(student, teacher, temperature=4.0)
    assert max(kept) <= 4 * 500


def test_one_view_is_compared_at_three_levels():
    student, teacher = (side[:5] for side in LOGITS)  # 3 of 5 samples, 5 of 10 classes
    loss = MLKD(temperatures=(1.0, 2.5))(student, teacher, {})
    assert loss.item() == pytest.approx(slow_mlkd(student, teacher, (1.0, 2.5)), rel=1e-9)


def test_of_two_views_the_strong_one_has_kd_alone_and_the_weak_one_is_repeated_as_published():
    expected = slow_mlkd(*LOGITS, AUTHORS)
    expected += sum(kd(*STRONG, temperature=t).item() for t in (4.0, 3.0, 5.0))
    expected += sum(kd(*LOGITS, temperature=t).item() for t in (2.0, 6.0))
    loss = MLKD(temperatures=AUTHORS)(*VIEWS, {"num_views": 2})
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_logit_standardisation_has_temperature_2_once_for_each_view(golden):
    """The code of arXiv:2403.01427 gives this number for `--logit-stand --base-temp 2`."""
    teacher = normal("c.mlkd.t", 12, 10, scale=4)
    criterion = MLKD(
        temperatures=(2.0, 3.0, 5.0, 2.0, 6.0),
        strong_temperatures=(2.0, 3.0, 5.0),
        standardize=True,
    )
    value, gradients = value_and_gradients(
        lambda logits: criterion(logits, teacher, {"num_views": 2}),
        [normal("c.mlkd.s", 12, 10, scale=2)],
    )
    reference = (6.15839375841, 0.373598719481, -0.282895525879)
    for number, expected in zip((value, *gradients[0]), reference, strict=True):
        golden(number, expected)


def test_of_equal_temperatures_the_first_ones_take_the_strong_view():
    def second(temperatures, strong):
        both = MLKD(temperatures=temperatures, strong_temperatures=strong)(*VIEWS, {"num_views": 2})
        return both.item() - slow_mlkd(*LOGITS, temperatures)

    weak, strong = (kd(*view, temperature=2.0).item() for view in (LOGITS, STRONG))
    assert second((2.0, 2.0), (2.0,)) == pytest.approx(strong + weak, rel=1e-9)
    assert second((2.0, 2.0), (2.0, 2.0)) == pytest.approx(2 * strong, rel=1e-9)
    assert second((2.0, 2.0), ()) == pytest.approx(2 * weak, rel=1e-9)


def test_the_first_three_temperatures_are_those_of_the_strong_view_unless_others_are_named():
    for temperatures in (AUTHORS, (2.0, 3.0, 5.0, 2.0, 6.0)):
        named = MLKD(temperatures=temperatures, strong_temperatures=temperatures[:3])
        assert MLKD(temperatures=temperatures).strong_temperatures == named.strong_temperatures


@pytest.mark.parametrize("strong", [(4.0, 3.0, 5.0), (3.0, 3.0)])
def test_a_strong_temperature_that_has_no_place_is_refused(strong):
    with pytest.raises(UserError, match=r"strong_temperatures has [43] more often"):
        MLKD(temperatures=(2.0, 3.0, 5.0, 2.0, 6.0), strong_temperatures=strong)


def test_the_strong_view_can_be_compared_at_all_temperatures():
    expected = slow_mlkd(*LOGITS, AUTHORS)
    expected += sum(kd(*STRONG, temperature=t).item() for t in AUTHORS)
    criterion = MLKD(temperatures=AUTHORS, strong_temperatures=AUTHORS)
    assert criterion(*VIEWS, {"num_views": 2}).item() == pytest.approx(expected, rel=1e-9)


def test_both_views_reach_the_student_and_neither_the_teacher():
    student, teacher = (side.clone().requires_grad_() for side in VIEWS)
    MLKD(temperatures=AUTHORS)(student, teacher, {"num_views": 2}).backward()
    assert student.grad.abs().sum(1).min() > 0
    assert teacher.grad is None


def test_no_images_of_two_views_give_zero():
    empty = torch.zeros(0, 10, requires_grad=True)
    loss = MLKD()(empty, empty, {"num_views": 2})
    loss.backward()
    assert loss == 0


def test_kd_alone_is_standardised():
    plain, standardised = (
        MLKD(temperatures=(4.0,), standardize=flag)(*LOGITS, {}) for flag in (False, True)
    )
    difference = kd(*LOGITS, standardize=True) - kd(*LOGITS)
    torch.testing.assert_close(standardised - plain, 0.5 * difference)
    with pytest.raises(UserError, match="standardize=True needs at least 3 classes, there are 2"):
        MLKD(standardize=True).check_shapes(((2,),), ((2,),))


@pytest.mark.parametrize("views", [1, 2])
def test_gradient_is_that_of_finite_differences(views):
    assert torch.autograd.gradcheck(
        lambda logits: MLKD(temperatures=(2.0,))(logits, VIEWS[1][::2], {"num_views": views}),
        VIEWS[0][::2].clone().requires_grad_(),
    )


def test_four_views_are_refused():
    with pytest.raises(UserError, match=r"MLKD: batch\['num_views'\] is 4; give one view"):
        MLKD()(*LOGITS, {"num_views": 4})


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match="needs the same shape"):
        class_correlation(torch.zeros(2, 10), torch.zeros(2, 100), temperature=1.0)
