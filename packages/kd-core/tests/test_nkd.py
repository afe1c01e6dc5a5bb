import math

import pytest
import torch
from kd_core.criteria.nkd import NKD, nkd, nkd_rows
from kd_core.errors import UserError
from kd_core.testing import signals

FIRST = signals((8, 10), 0.7, 0.1, 3), signals((8, 10), 1.3, 0.5, 3), (3 * torch.arange(8) + 1) % 10
SECOND = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4), torch.tensor([3, 0, 7, 3])


@pytest.mark.parametrize(
    ("inputs", "arguments", "reference"),
    [
        (FIRST, {"gamma": 8.0, "temperature": 4.0}, 300.240852833),
        (SECOND, {}, 3.362642076182384),
        (SECOND, {"gamma": 3.5, "temperature": 3.0}, 65.27385710353573),
    ],
)
def test_equals_the_value_of_the_authors_code(inputs, arguments, reference, golden):
    student, teacher, label = inputs
    golden(nkd(*inputs, **arguments), reference)
    golden(NKD(**arguments)(student, teacher, {"label": label}), reference)


def test_the_target_is_among_the_others_only_on_request_as_in_sdd(golden):
    arguments = {"gamma": 8.0, "temperature": 4.0}
    golden(nkd_rows(*FIRST, **arguments, all_classes=True).mean(), 313.271516882)


def slow_nkd(student, teacher, label, gamma, temperature):
    """One sample in plain Python."""
    p, q = ([math.exp(z) for z in row] for row in (student, teacher))
    loss = -q[label] / sum(q) * math.log(p[label] / sum(p))
    others = [c for c in range(len(p)) if c != label]
    p, q = ([math.exp(row[c] / temperature) for c in others] for row in (student, teacher))
    for a, b in zip(p, q, strict=True):
        loss -= gamma * temperature**2 * b / sum(q) * math.log(a / sum(p))
    return loss


def test_equals_the_equation_written_as_a_loop():
    rows = zip(*(side.tolist() for side in SECOND), strict=True)
    expected = sum(slow_nkd(*row, gamma=2.0, temperature=2.5) for row in rows) / 4
    assert nkd(*SECOND, gamma=2.0, temperature=2.5).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    student, teacher, label = SECOND
    assert torch.autograd.gradcheck(
        lambda logits: nkd(logits, teacher, label, temperature=2.0),
        student.clone().requires_grad_(),
    )


def test_among_the_others_the_gradient_ends_where_they_agree():
    student, _, label = SECOND
    shift = torch.nn.functional.one_hot(label, 10) * 2.0  # other logits of the target only
    logits = student.clone().requires_grad_()
    rows = nkd_rows(logits, student + shift, label, gamma=1e6, temperature=1.0)
    rows.sum().backward()
    assert logits.grad.abs().max() < 10
    assert logits.grad.gather(1, label[:, None]).abs().min() > 0


@pytest.mark.parametrize("height", [50.0, 1e3, 1e6])
def test_saturated_networks_give_a_finite_loss_and_gradient(height):
    student = torch.tensor([[height, 0.0, -height]], requires_grad=True)
    for label in range(3):
        loss = nkd(student, -student, torch.tensor([label]))
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()


def test_with_two_classes_only_the_target_teaches():
    student, teacher, label = torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    values = [nkd(student, teacher, label, gamma=gamma) for gamma in (0.0, 100.0)]
    torch.testing.assert_close(*values)


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 100\]"):
        nkd(torch.zeros(2, 10), torch.zeros(2, 100), torch.zeros(2, dtype=torch.int64))
