import math

import pytest
import torch
from kd_core.criteria.dkd import DKD, dkd
from kd_core.criteria.kd import kd
from kd_core.testing import NoHostReads, signals

FIRST = signals((8, 10), 0.7, 0.1, 3), signals((8, 10), 1.3, 0.5, 3), (3 * torch.arange(8) + 1) % 10
SECOND = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4), torch.tensor([3, 0, 7, 3])


@pytest.mark.parametrize(
    ("inputs", "arguments", "reference"),
    [
        (FIRST, {}, 34.6604989175),
        (FIRST, {"beta": 0.0}, 0.451806088098),
        (FIRST, {"alpha": 0.0, "beta": 1.0}, 4.27608660368),
        (FIRST, {"beta": 0.25, "temperature": 1.0}, 0.878465880201),
        (SECOND, {}, 13.71896612279167),
        (SECOND, {"temperature": 2.0, "standardize": True}, 2.0056812364375673),
    ],
)
def test_equals_the_value_of_the_authors_code(inputs, arguments, reference, golden):
    student, teacher, label = inputs
    golden(dkd(*inputs, **arguments), reference)
    golden(DKD(**arguments)(student, teacher, {"label": label}), reference)


def slow_dkd(student, teacher, label, alpha, beta, temperature):
    """One sample in plain Python: the two divergences of probabilities, each summed in a loop."""
    p, q = ([math.exp(z / temperature) for z in row] for row in (student, teacher))
    p, q = ([value / sum(row) for value in row] for row in (p, q))
    p_rest, q_rest = sum(p) - p[label], sum(q) - q[label]
    tckd = q[label] * math.log(q[label] / p[label]) + q_rest * math.log(q_rest / p_rest)
    nckd = 0.0
    for c in range(len(p)):
        if c != label:
            nckd += q[c] / q_rest * math.log((q[c] / q_rest) / (p[c] / p_rest))
    return (alpha * tckd + beta * nckd) * temperature**2


def test_equals_the_equation_written_as_a_loop():
    rows = zip(*(side.tolist() for side in SECOND), strict=True)
    expected = sum(slow_dkd(*row, alpha=1.5, beta=3.0, temperature=2.5) for row in rows) / 4
    loss = dkd(*SECOND, alpha=1.5, beta=3.0, temperature=2.5)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_equals_kd_when_the_weights_are_those_of_the_papers_decomposition():
    for student, teacher, label in zip(*SECOND, strict=True):
        beta = 1 - (teacher / 4.0).softmax(0)[label].item()
        inputs = student[None], teacher[None], label[None]
        assert dkd(*inputs, beta=beta).item() == pytest.approx(kd(*inputs[:2]).item(), rel=1e-12)


@pytest.mark.parametrize("standardize", [False, True])
def test_gradient_is_that_of_finite_differences(standardize):
    student, teacher, label = SECOND
    assert torch.autograd.gradcheck(
        lambda logits: dkd(logits, teacher, label, standardize=standardize),
        student.clone().requires_grad_(),
    )


@pytest.mark.parametrize("height", [50.0, 1e3, 1e6])
@pytest.mark.parametrize("label", [0, 1])
def test_saturated_networks_give_a_finite_loss_and_gradient(height, label):
    student = torch.tensor([[height, 0.0, -height]], requires_grad=True)
    teacher = torch.tensor([[-height, 0.0, height]])
    loss = dkd(student, teacher, torch.tensor([label]), temperature=1.0)
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert student.grad.isfinite().all()


def test_with_two_classes_the_rest_has_nothing_to_teach():
    student = torch.randn(4, 2, requires_grad=True)
    teacher, label = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    rest = dkd(student, teacher, label, alpha=0.0, beta=8.0)
    rest.backward()
    assert rest == 0
    assert not student.grad.any()
    target = dkd(student, teacher, label, alpha=1.0, beta=8.0)
    torch.testing.assert_close(target, kd(student, teacher))


def test_the_target_takes_no_part_in_what_the_rest_teaches():
    student, teacher, label = SECOND
    other = student.scatter(1, label[:, None], 5.0)
    values = [dkd(logits, teacher, label, alpha=0.0) for logits in (student, other)]
    torch.testing.assert_close(*values)


def test_a_constant_added_to_all_logits_changes_nothing():
    student, teacher, label = SECOND
    moved = dkd(student - 1e5, teacher - 1e5, label)
    torch.testing.assert_close(moved, dkd(student, teacher, label))


def test_labels_are_not_read_back():
    student, teacher, _ = SECOND
    with NoHostReads():
        loss = dkd(student, teacher, torch.zeros(4, dtype=torch.int64))
    assert loss > 0
