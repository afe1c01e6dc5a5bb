import math

import pytest
import torch
from kd_core.criteria.kd import KD, kd
from kd_core.errors import UserError
from kd_core.testing import signals
from kd_core.testing.golden_inputs import normal, value_and_gradients

FIRST = signals((8, 10), 0.7, 0.1, 3), signals((8, 10), 1.3, 0.5, 3)
SECOND = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)


@pytest.mark.parametrize(
    ("logits", "arguments", "reference"),
    [
        (FIRST, {}, 4.26302688178),
        (SECOND, {}, 1.7452160674378532),
        (SECOND, {"temperature": 2.0, "standardize": True}, 0.25256881584846236),
    ],
)
def test_equals_the_value_of_the_authors_code(logits, arguments, reference, golden):
    golden(kd(*logits, **arguments), reference)
    golden(KD(**arguments)(*logits, {}), reference)


def slow_softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def test_equals_the_equation_written_as_a_loop():
    student, teacher = SECOND
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(slow_softmax(s, 3.0), slow_softmax(t, 3.0), strict=True)
        expected += sum(q * math.log(q / p) for p, q in pairs) * 9 / len(student)
    assert kd(student, teacher, temperature=3.0).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("standardize", [False, True])
def test_gradient_is_that_of_finite_differences(standardize):
    student, teacher = SECOND
    assert torch.autograd.gradcheck(
        lambda logits: kd(logits, teacher, standardize=standardize),
        student.clone().requires_grad_(),
    )


def test_a_teacher_without_doubt_gives_a_finite_loss():
    student = torch.tensor([[0.0, 1e4, 0.0]], requires_grad=True)
    loss = kd(student, torch.tensor([[1e4, 0.0, 0.0]]), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert student.grad.isfinite().all()


def test_standardised_logits_may_have_any_scale():
    student, teacher = SECOND
    scaled = kd(5 * student + 1, teacher / 7, standardize=True)
    assert scaled.item() == pytest.approx(kd(student, teacher, standardize=True).item(), rel=1e-6)


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 100\]"):
        kd(torch.zeros(2, 10), torch.zeros(2, 100))


@pytest.mark.parametrize(
    ("temperature", "reference"),
    [
        (1.0, (2.59760217691, 0.360721606217, 0.272158814585)),
        (10.0, (5.48117251215, 0.473192835737, 0.37241789509)),
    ],
)
def test_equals_value_and_gradient_of_function_matching(temperature, reference, golden):
    teacher = normal("c.fm.t", 5, 10, scale=3)
    value, gradients = value_and_gradients(
        lambda logits: KD(temperature=temperature)(logits, teacher, {}),
        [normal("c.fm.s", 5, 10, scale=2)],
    )
    for number, expected in zip((value, *gradients[0]), reference, strict=True):
        golden(number, expected)


def test_the_sum_over_teachers_has_the_gradient_of_kd_to_their_mean_probabilities():
    teachers = [normal(f"fm.t{number}", 5, 10, scale=3) for number in range(3)]
    student = normal("fm.s", 5, 10).requires_grad_()
    mean = torch.stack([teacher.softmax(1) for teacher in teachers]).mean(0).log()
    total = sum(kd(student, teacher, temperature=1.0) for teacher in teachers)
    expected = 3 * kd(student, mean, temperature=1.0)
    found = (torch.autograd.grad(value, student)[0] for value in (total, expected))
    torch.testing.assert_close(*found)
