import math

import pytest
import torch
from kd_core.criteria.hard_label import HardLabel, hard_label
from kd_core.criteria.soft_label import soft_label
from kd_core.errors import UserError
from kd_core.testing import signals

STUDENT, TEACHER = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)


def test_equals_the_value_of_deit(golden):
    golden(hard_label(STUDENT, TEACHER), 1.4125567517883688)


def test_equals_the_equation_written_as_a_loop():
    expected = 0.0
    for s, t in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        chosen = t.index(max(t))
        expected += (math.log(sum(math.exp(value) for value in s)) - s[chosen]) / 4
    assert hard_label(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)
    assert HardLabel()(STUDENT, TEACHER, {}).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_the_difference_from_the_teacher_s_class():
    chosen = torch.zeros_like(TEACHER)
    chosen[torch.arange(4), TEACHER.argmax(1)] = 1
    logits = STUDENT.clone().requires_grad_()
    hard_label(logits, TEACHER).backward()
    torch.testing.assert_close(logits.grad, (STUDENT.softmax(1) - chosen) / 4)


def test_is_the_soft_label_of_a_teacher_that_is_sure():
    torch.testing.assert_close(hard_label(STUDENT, TEACHER), soft_label(STUDENT, 1e4 * TEACHER))


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 100\]"):
        hard_label(torch.zeros(2, 10), torch.zeros(2, 100))
