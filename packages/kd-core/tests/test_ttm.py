import math

import pytest
import torch
from kd_core.criteria.kd import kd
from kd_core.criteria.ttm import TTM, WTTM, ttm, wttm
from kd_core.errors import UserError
from kd_core.testing import signals

LOGITS = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)


@pytest.mark.parametrize(
    ("function", "criterion", "arguments", "reference"),
    [
        (ttm, TTM, {}, 1.1106131927596663),
        (wttm, WTTM, {}, 7.30180096416196),
        (wttm, WTTM, {"gamma": 0.2}, 4.027749097353276),
    ],
)
def test_equals_the_value_of_the_authors_code(function, criterion, arguments, reference, golden):
    golden(function(*LOGITS, **arguments), reference)
    golden(criterion(**arguments)(*LOGITS, {}), reference)


def slow_softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize(("function", "weighted"), [(ttm, False), (wttm, True)])
def test_equals_the_equation_written_as_a_loop(function, weighted):
    expected = 0.0
    for s, t in zip(*(side.tolist() for side in LOGITS), strict=True):
        powers = [q**0.3 for q in slow_softmax(t)]
        q = [power / sum(powers) for power in powers]
        divergence = sum(b * math.log(b / a) for a, b in zip(slow_softmax(s), q, strict=True))
        expected += (sum(powers) if weighted else 1) * divergence / 4
    assert function(*LOGITS, gamma=0.3).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("function", [ttm, wttm])
def test_gradient_is_that_of_finite_differences(function):
    student, teacher = LOGITS
    assert torch.autograd.gradcheck(
        lambda logits: function(logits, teacher), student.clone().requires_grad_()
    )


@pytest.mark.parametrize("function", [ttm, wttm])
def test_without_a_power_it_is_kd_without_a_temperature(function):
    torch.testing.assert_close(function(*LOGITS, gamma=1.0), kd(*LOGITS, temperature=1.0))


@pytest.mark.parametrize("function", [ttm, wttm])
def test_a_teacher_without_doubt_gives_a_finite_loss(function):
    student = torch.tensor([[0.0, 1e4, 0.0]], requires_grad=True)
    loss = function(student, torch.tensor([[1e6, 0.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("function", [ttm, wttm])
def test_different_numbers_of_classes_are_refused(function):
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 1\]"):
        function(torch.zeros(2, 10), torch.zeros(2, 1))
