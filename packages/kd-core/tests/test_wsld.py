import math

import pytest
import torch
from kd_core.criteria.wsld import WSLD, wsld
from kd_core.errors import UserError
from kd_core.testing import signals

INPUTS = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4), torch.tensor([3, 0, 7, 3])


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [({}, 50.97071141561729), ({"alpha": 2.5, "temperature": 2.0}, 13.45840621230705)],
)
def test_equals_the_value_of_the_authors_code(arguments, reference, golden):
    student, teacher, label = INPUTS
    golden(wsld(*INPUTS, **arguments), reference)
    golden(WSLD(**arguments)(student, teacher, {"label": label}), reference)


def slow_softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_weight(student, teacher, label):
    own, shown = (-math.log(slow_softmax(row)[label]) for row in (student, teacher))
    return 1 - math.exp(-max(0, own / (shown + 1e-7)))


def test_equals_the_equation_written_as_a_loop():
    expected = 0.0
    for s, t, y in zip(*(side.tolist() for side in INPUTS), strict=True):
        p, q = slow_softmax(s, 2.5), slow_softmax(t, 2.5)
        soft = -sum(b * math.log(a) for a, b in zip(p, q, strict=True))
        expected += 1.5 * 2.5**2 * slow_weight(s, t, y) * soft / 4
    assert wsld(*INPUTS, alpha=1.5, temperature=2.5).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_kd_times_the_weight_of_the_sample():
    student, teacher, label = INPUTS
    logits = student.clone().requires_grad_()
    wsld(logits, teacher, label, alpha=1.5, temperature=2.5).backward()
    for row, s, t, y in zip(logits.grad, *(side.tolist() for side in INPUTS), strict=True):
        factor = 1.5 * 2.5 * slow_weight(s, t, y) / 4
        pairs = zip(slow_softmax(s, 2.5), slow_softmax(t, 2.5), strict=True)
        assert row.tolist() == pytest.approx([factor * (p - q) for p, q in pairs], rel=1e-9)


@pytest.mark.parametrize(("sure", "weight"), [("teacher", 1.0), ("student", 0.0)])
def test_a_network_without_doubt_gives_the_extreme_weight(sure, weight):
    logits = {name: torch.zeros(1, 3) for name in ("student", "teacher")}
    logits[sure] = torch.tensor([[1e6, 0.0, 0.0]])
    student = logits["student"].requires_grad_()
    loss = wsld(student, logits["teacher"], torch.tensor([0]), alpha=1.0, temperature=1.0)
    loss.backward()
    soft = -(logits["teacher"].softmax(1) * student.log_softmax(1)).sum()
    assert loss.item() == pytest.approx(weight * soft.item())
    assert student.grad.isfinite().all()


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 100\]"):
        wsld(torch.zeros(2, 10), torch.zeros(2, 100), torch.zeros(2, dtype=torch.int64))
