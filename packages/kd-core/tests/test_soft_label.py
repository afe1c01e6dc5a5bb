import math

import pytest
import torch
from kd_core.criteria.kd import kd
from kd_core.criteria.soft_label import LabelSmoothing, SoftLabel, label_smoothing, soft_label
from kd_core.errors import UserError
from kd_core.testing import check_contract, signals

STUDENT, TEACHER = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)
LABEL = torch.tensor([3, 0, 7, 3])


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [({}, 2.155732562275076), ({"temperature": 3.0}, 19.52675160131819)],
)
def test_soft_label_equals_the_value_of_the_authors_code(arguments, reference, golden):
    golden(soft_label(STUDENT, TEACHER, **arguments), reference)
    golden(SoftLabel(**arguments)(STUDENT, TEACHER, {}), reference)


def test_label_smoothing_equals_the_value_of_the_authors_code(golden):
    golden(label_smoothing(STUDENT, LABEL), 3.37229084024865)
    golden(LabelSmoothing()(STUDENT, TEACHER, {"label": LABEL}), 3.37229084024865)


def test_the_authors_kd_is_divided_by_the_number_of_classes_too(golden):
    golden(kd(STUDENT, TEACHER, temperature=3.0) / 10, 0.15994297285684914)


def slow_softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def test_soft_label_equals_the_equation_written_as_a_loop():
    expected = 0.0
    for s, t in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        pairs = zip(slow_softmax(s, 2.5), slow_softmax(t, 2.5), strict=True)
        expected -= sum(q * math.log(p) for p, q in pairs) * 2.5**2 / 4
    value = soft_label(STUDENT, TEACHER, temperature=2.5).item()
    assert value == pytest.approx(expected, rel=1e-12)


def test_its_gradient_is_the_difference_of_the_probabilities():
    logits = STUDENT.clone().requires_grad_()
    soft_label(logits, TEACHER, temperature=2.5).backward()
    for row, s, t in zip(logits.grad, STUDENT.tolist(), TEACHER.tolist(), strict=True):
        pairs = zip(slow_softmax(s, 2.5), slow_softmax(t, 2.5), strict=True)
        assert row.tolist() == pytest.approx([2.5 * (p - q) / 4 for p, q in pairs], rel=1e-9)


def test_it_is_kd_and_the_entropy_of_the_teacher():
    entropy = soft_label(TEACHER, TEACHER, temperature=3.0)
    expected = kd(STUDENT, TEACHER, temperature=3.0) + entropy
    torch.testing.assert_close(soft_label(STUDENT, TEACHER, temperature=3.0), expected)


def test_sl_kd_is_sl_with_the_mean_probabilities_times_the_teachers_not_with_mean_logits():
    teachers = torch.stack([TEACHER, signals((4, 10), 0.7, 2.0, 4), signals((4, 10), 0.9, 0.4, 4)])
    total = sum(soft_label(STUDENT, teacher) for teacher in teachers)
    of_probabilities = soft_label(STUDENT, teachers.softmax(2).mean(0).log())
    torch.testing.assert_close(total, 3 * of_probabilities)
    of_logits = soft_label(STUDENT, teachers.mean(0))
    assert abs(total - 3 * of_logits) > 0.1


def test_the_ground_truth_adds_one_to_the_logit_of_the_true_class():
    raised = TEACHER.clone()
    for row, label in zip(raised, LABEL.tolist(), strict=True):
        row[label] += 1
    value = SoftLabel(temperature=3.0, ground_truth=True)(STUDENT, TEACHER, {"label": LABEL})
    torch.testing.assert_close(value, soft_label(STUDENT, raised, temperature=3.0))
    without = SoftLabel(temperature=3.0)(STUDENT, TEACHER, {"label": LABEL})
    assert abs(value - without) > 0.01


def test_the_contract_holds_with_ground_truth_too():
    check_contract(SoftLabel, ground_truth=True)


def test_label_smoothing_equals_the_equation_written_as_a_loop():
    expected = 0.0
    for row, label in zip(STUDENT.tolist(), LABEL.tolist(), strict=True):
        for c, p in enumerate(slow_softmax(row)):
            target = 0.3 / 10 + (0.7 if c == label else 0.0)
            expected -= target * math.log(p) / 4
    value = label_smoothing(STUDENT, LABEL, epsilon=0.3).item()
    assert value == pytest.approx(expected, rel=1e-12)


def test_its_gradient_ends_at_the_smoothed_label():
    smoothed = torch.full((4, 10), 0.03, dtype=torch.float64)
    smoothed[torch.arange(4), LABEL] += 0.7
    logits = STUDENT.clone().requires_grad_()
    label_smoothing(logits, LABEL, epsilon=0.3).backward()
    torch.testing.assert_close(logits.grad, (STUDENT.softmax(1) - smoothed) / 4)


def test_label_smoothing_does_not_mind_a_teacher_of_other_classes():
    LabelSmoothing().check_shapes(((10,),), ((100,),))
    LabelSmoothing().check_shapes(((10,),), ())
    with pytest.raises(UserError, match="LabelSmoothing takes logits"):
        LabelSmoothing().check_shapes(((4, 8, 8),), ())


@pytest.mark.parametrize("epsilon", [-0.1, 1.5])
def test_an_impossible_share_is_refused(epsilon):
    with pytest.raises(
        UserError, match=rf"epsilon: wanted a number of at (least 0|most 1), got {epsilon}"
    ):
        LabelSmoothing(epsilon=epsilon)


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 100\]"):
        soft_label(torch.zeros(2, 10), torch.zeros(2, 100))
