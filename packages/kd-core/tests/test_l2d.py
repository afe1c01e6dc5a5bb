"""L2D: labels one by one, and the distances among their embeddings."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.l2d import L2D, MLD, class_aware, instance_aware, mld
from kd_core.errors import UserError
from kd_core.testing import NoHostReads


def drawn(key, shape, scale=1.0):
    numbers = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape) * scale
    return torch.from_numpy(numbers.astype(np.float32)).double()


def inputs():
    """Return what the reference was run with: logits and embeddings of both, and the labels."""
    label = np.random.default_rng(zlib.crc32(b"c.l2d.y")).random((6, 8)) < 0.5
    return SimpleNamespace(
        logits=(drawn("c.l2d.s", (6, 8), 2).requires_grad_(), drawn("c.l2d.t", (6, 8), 3)),
        embeddings=(
            drawn("c.l2d.es", (6, 8, 5)).requires_grad_(),
            drawn("c.l2d.et", (6, 8, 5), 1.5),
        ),
        label=torch.from_numpy(label).double(),
    )


def hold(golden, value, student, reference):
    """Hold a value, and length and probe of its gradient, against the reference's."""
    (gradient,) = torch.autograd.grad(value, student, retain_graph=True)
    places = torch.arange(1, gradient.numel() + 1, dtype=torch.float64)
    probe = (gradient.flatten() * places.sin()).sum()
    found = value.detach(), gradient.norm(), probe
    for number, expected in zip(found, reference, strict=True):
        golden(number, expected)


def test_logits_equal_the_value_of_the_authors_code(golden):
    given = inputs()
    reference = 7.92147240071, 0.646471916327, -0.482693075276
    hold(golden, mld(*given.logits), given.logits[0], reference)
    hold(golden, MLD()(*given.logits, {}), given.logits[0], reference)


@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (class_aware, (1.20087099102, 0.421309816112, 0.176743205132)),
        (instance_aware, (1.64916761836, 0.536256271053, -0.103377989662)),
    ],
)
def test_embeddings_equal_the_value_of_the_authors_code(function, reference, golden):
    given = inputs()
    hold(golden, function(*given.embeddings, given.label), given.embeddings[0], reference)


def test_all_of_it_equals_the_value_of_the_authors_code(golden):
    given = inputs()
    sides = zip(given.logits, given.embeddings, strict=True)
    value = L2D()(*sides, {"label": given.label})
    hold(golden, value, given.logits[0], (1848.46944147, 6.46471916327, -4.82693075276))
    hold(golden, value, given.embeddings[0], (1848.46944147, 543.983636263, -85.703669149))


def slow_structure(student, teacher):
    """Return H of the rows of two lists, written as a loop."""
    number, gaps = len(student), 0.0
    tables = []
    for rows in (student, teacher):
        table = [[(a - b).norm().item() if a is not b else 0.0 for a in rows] for b in rows]
        positive = [value for line in table for value in line if value > 0]
        mean = sum(positive) / len(positive)
        tables.append([value / mean for line in table for value in line])
    for ours, theirs in zip(*tables, strict=True):
        gap = abs(ours - theirs)
        gaps += gap**2 / 2 if gap < 1 else gap - 0.5
    return gaps / number


def test_both_parts_equal_the_equation_written_as_a_loop():
    given = inputs()
    student, teacher = (side.detach() for side in given.embeddings)
    for function, axis in ((class_aware, 1), (instance_aware, 0)):
        expected = 0.0
        for place in range(given.label.shape[axis]):
            present = given.label.select(axis, place) > 0
            sides = [list(side.select(axis, place)[present]) for side in (student, teacher)]
            if present.sum() > 1:
                expected += slow_structure(*sides)
        value = function(student, teacher, given.label).item()
        assert value == pytest.approx(expected, rel=1e-9)


def test_logits_equal_two_divergences_a_class():
    student, teacher = inputs().logits
    pairs = [torch.stack([F.logsigmoid(x), F.logsigmoid(-x)]) for x in (student, teacher)]
    expected = (pairs[1].exp() * (pairs[1] - pairs[0])).sum() / 6
    torch.testing.assert_close(mld(student, teacher), expected)


@pytest.mark.parametrize("function", [class_aware, instance_aware])
def test_gradient_is_that_of_finite_differences(function):
    given = inputs()
    student, teacher, label = (x[:4, :4] for x in (*given.embeddings, given.label))
    student = student.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x, teacher, label), student)


def test_confident_logits_of_single_precision_are_finite():
    student = torch.tensor([[200.0, -200.0]], requires_grad=True)
    value = mld(student, -student.detach())
    value.backward()
    assert value.item() == pytest.approx(400)
    assert student.grad.isfinite().all()


def test_two_embeddings_and_equal_embeddings_give_nothing():
    student, teacher = drawn("a", (2, 3, 4)).requires_grad_(), drawn("b", (2, 3, 4))
    label = torch.ones(2, 3)
    assert class_aware(student, teacher, label).item() == pytest.approx(0, abs=1e-12)
    equal = torch.ones(4, 3, 4, dtype=torch.float64, requires_grad=True)
    value = class_aware(equal, drawn("c", (4, 3, 4)), torch.ones(4, 3))
    value.backward()
    assert value.item() == 0
    assert not equal.grad.any()


def test_a_present_row_of_zeros_counts_and_absent_rows_do_not():
    given = inputs()
    student, teacher = (side.detach().clone() for side in given.embeddings)
    student[0, given.label[0] > 0] *= torch.tensor([0.0] + [1.0] * int(given.label[0].sum() - 1))[
        :, None
    ]
    value = instance_aware(student, teacher, given.label)
    present = given.label[0] > 0
    alone = slow_structure(list(student[0, present]), list(teacher[0, present]))
    rest = instance_aware(student[1:], teacher[1:], given.label[1:])
    assert value.item() == pytest.approx(alone + rest.item(), rel=1e-9)
    student[given.label == 0] = 1e6
    torch.testing.assert_close(instance_aware(student, teacher, given.label), value)


@pytest.mark.parametrize("unknown", [-1.0, torch.nan])
def test_unknown_labels_are_not_present(unknown):
    given = inputs()
    label = given.label.masked_fill(given.label == 0, unknown)
    expected = class_aware(*given.embeddings, given.label)
    torch.testing.assert_close(class_aware(*given.embeddings, label), expected)


def test_nothing_is_read_back_from_the_device():
    given = inputs()
    sides = zip(given.logits, given.embeddings, strict=True)
    with NoHostReads():
        L2D()(*sides, {"label": given.label}).backward()


def test_what_does_not_fit_is_refused():
    given, criterion = inputs(), L2D()
    sides = list(zip(given.logits, given.embeddings, strict=True))
    with pytest.raises(UserError, match=r"L2D needs labels \[N, C\]"):
        criterion(*sides, {"label": torch.zeros(6, dtype=torch.int64)})
    with pytest.raises(UserError, match="8 logits but 9 embeddings"):
        criterion.check_shapes(((8,), (8, 5)), ((8,), (9, 5)))
    with pytest.raises(UserError, match="need the same images and classes"):
        class_aware(given.embeddings[0], given.embeddings[1][:, :7], given.label)
    with pytest.raises(UserError, match="reads 'label', which the batch lacks"):
        criterion(*sides, {"image": torch.zeros(6)})
