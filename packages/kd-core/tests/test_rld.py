import math

import pytest
import torch
from kd_core.criteria.kd import kd
from kd_core.criteria.rld import RLD, rld
from kd_core.errors import UserError
from kd_core.testing.golden_inputs import integers, normal, value_and_gradients

STUDENT, TEACHER = normal("rld.s", 6, 10, scale=2), normal("rld.t", 6, 10, scale=4)
LABEL = integers("rld.y", 6, high=10)


@pytest.mark.parametrize(
    ("key", "arguments", "reference"),
    [
        ("rld0", {}, (28.0525351301, 3.83327683811, 2.47315385797)),
        (
            "rld1",
            {"standardize": True, "alpha": 9.0, "beta": 72.0, "temperature": 2.0},
            (35.4123131234, 4.59114494467, -1.1562066569),
        ),
        ("rldc", {"temperature": 3.0}, (27.4540362772, 2.97853489611, 1.6950198806)),
    ],
)
def test_equals_value_and_gradient_of_the_authors_code(key, arguments, reference, golden):
    teacher = normal(f"c.{key}.t", 6, 10, scale=4)
    label = integers(f"c.{key}.y", 6, high=10)
    student = normal(f"c.{key}.s", 6, 10, scale=2)
    for loss in (
        lambda logits: rld(logits, teacher, label, **arguments),
        lambda logits: RLD(**arguments)(logits, teacher, {"label": label}),
    ):
        value, gradients = value_and_gradients(loss, [student])
        for number, expected in zip((value, *gradients[0]), reference, strict=True):
            golden(number, expected)


def slow_kl(p, q):
    """KL(q || p) of unnormalised rows."""
    p, q = ([value / sum(row) for value in row] for row in (p, q))
    return sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


def slow_rld(student, teacher, label, alpha, beta, first, second):
    """One sample in plain Python."""
    s, t = ([math.exp(z / first) for z in row] for row in (student, teacher))
    own, shown = s[label] / sum(s), max(t) / sum(t)
    confidence = first**2 * slow_kl([own, 1 - own], [shown, 1 - shown])
    kept = [c for c in range(len(teacher)) if teacher[c] < teacher[label]]
    if not kept:
        return alpha * confidence
    sides = [[math.exp(row[c] / second) for c in kept] for row in (student, teacher)]
    return alpha * confidence + beta * second**2 * slow_kl(*sides)


def test_equals_the_equation_written_as_a_loop():
    rows = zip(STUDENT.tolist(), TEACHER.tolist(), LABEL.tolist(), strict=True)
    expected = sum(slow_rld(*row, 1.5, 3.0, 1.5, 2.5) for row in rows) / 6
    loss = rld(
        STUDENT, TEACHER, LABEL, alpha=1.5, beta=3.0, temperature=2.5, target_temperature=1.5
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("place", [0, 1], ids=["none", "one"])
def test_fewer_than_two_classes_below_the_true_one_teach_nothing_more(place):
    label = TEACHER.argsort(1)[:, place]
    student = STUDENT.clone().requires_grad_()
    loss = rld(student, TEACHER, label, alpha=0.0)
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


def test_classes_that_the_teacher_ranks_as_high_as_the_true_one_are_not_taught():
    teacher, label = TEACHER.clone(), TEACHER.argsort(1)[:, -3]
    others = TEACHER.argsort(1)[:, -2:]  # one above, and one that becomes equal
    teacher.scatter_(1, others[:, :1], teacher.gather(1, label[:, None]))
    student = STUDENT.clone().requires_grad_()
    rld(student, teacher, label, alpha=0.0).backward()
    untaught = torch.cat([label[:, None], others], 1)
    assert not student.grad.gather(1, untaught).any()
    assert (student.grad != 0).sum() == 6 * 7


def test_a_teacher_that_is_right_gives_kd_of_the_two_bins():
    label = TEACHER.argmax(1)
    rows = [torch.stack([x.gather(1, label[:, None])[:, 0], rest(x, label)], 1) for x in sides()]
    expected = kd(*rows, temperature=1.0)
    loss = rld(STUDENT, TEACHER, label, beta=0.0, temperature=1.0)
    torch.testing.assert_close(loss, expected)


def sides():
    return STUDENT, TEACHER


def rest(logits, label):
    return logits.scatter(1, label[:, None], -torch.inf).logsumexp(1)


@pytest.mark.parametrize("height", [50.0, 1e3, 1e6])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_saturated_networks_give_a_finite_loss_and_gradient(height, label):
    student = torch.tensor([[height, 0.0, -height]], requires_grad=True)
    teacher = torch.tensor([[-height, 0.0, height]])
    loss = rld(student, teacher, torch.tensor([label]), temperature=1.0)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert loss > 0 or label == 0  # the true class has the student's trust


@pytest.mark.parametrize("standardize", [False, True])
def test_gradient_is_that_of_finite_differences(standardize):
    assert torch.autograd.gradcheck(
        lambda logits: rld(logits, TEACHER, LABEL, standardize=standardize),
        STUDENT.clone().requires_grad_(),
    )


def test_two_standardised_classes_are_refused():
    with pytest.raises(UserError, match="standardize=True needs at least 3 classes, there are 2"):
        RLD(standardize=True).check_shapes(((2,),), ((2,),))


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 100\]"):
        rld(torch.zeros(2, 10), torch.zeros(2, 100), torch.zeros(2, dtype=torch.int64))
