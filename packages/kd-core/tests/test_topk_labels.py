import math

import pytest
import torch
from kd_core.criteria.soft_label import soft_label
from kd_core.criteria.topk_labels import TopKLabels, largest, spread, topk_labels
from kd_core.errors import UserError
from kd_core.testing import check_contract
from kd_core.testing.golden_inputs import normal, probe, value_and_gradients

STUDENT, TEACHER = normal("tk.s", 4, 12, scale=2), normal("tk.t", 4, 12, scale=3)
CASES = {
    "spread": (
        [[1, 7, 0, 9, 5], [2, 3, 5, 1, 6], [1, 5, 2, 0, 7], [2, 9, 5, 6, 1]],
        [
            [0.1241, 0.0837, 0.0721, 0.0549, 0.0539],
            [0.1025, 0.0668, 0.0608, 0.0528, 0.0485],
            [0.1409, 0.1238, 0.0585, 0.0455, 0.0289],
            [0.0997, 0.0662, 0.0655, 0.0615, 0.038],
        ],
    ),
    "renormalize": (
        [[9, 5, 10, 0, 1], [6, 4, 5, 9, 8], [0, 8, 3, 9, 4], [5, 10, 1, 2, 4]],
        [
            [0.1989, 0.1579, 0.1133, 0.0293, 0.0163],
            [0.176, 0.1418, 0.0704, 0.0656, 0.0644],
            [0.1723, 0.1702, 0.153, 0.1114, 0.0501],
            [0.1777, 0.1765, 0.0829, 0.0742, 0.026],
        ],
    ),
}
"""Classes and probabilities as the authors' code was given them."""


@pytest.mark.parametrize(
    ("fill", "reference"), [("spread", 0.105269902755), ("renormalize", -0.414728324457)]
)
def test_labels_equal_those_of_fkd(fill, reference, golden):
    index, value = (torch.tensor(rows) for rows in CASES[fill])
    labels = spread(index, value.double(), num_classes=12, fill=fill)
    golden(labels.sum(), 4)
    golden(probe(labels), reference)


@pytest.mark.parametrize(
    ("key", "arguments", "reference"),
    [
        ("tk0", {"fill": "spread"}, (4.81985507215, 0.502023992836, 0.9787053282)),
        (
            "tk1",
            {"fill": "renormalize", "temperature": 2.0},
            (2.80309218753, 0.134355781275, 0.0358655900746),
        ),
    ],
)
def test_equals_value_and_gradient_of_the_reference(key, arguments, reference, golden):
    teacher = normal(f"c.{key}.t", 4, 12, scale=3)
    criterion = TopKLabels(k=5, **arguments)
    value, gradients = value_and_gradients(
        lambda logits: criterion(logits, teacher, {}), [normal(f"c.{key}.s", 4, 12, scale=2)]
    )
    for number, expected in zip((value, *gradients[0]), reference, strict=True):
        golden(number, expected)


def slow_label(row, k, temperature, fill):
    powers = [math.exp(value / temperature) for value in row]
    p = [power / sum(powers) for power in powers]
    kept = sorted(range(len(p)), key=lambda c: (-p[c], c))[:k]
    total = sum(p[c] for c in kept)
    if fill == "spread":
        return [p[c] if c in kept else (1 - total) / (len(p) - k) for c in range(len(p))]
    return [p[c] / total if c in kept else 0.0 for c in range(len(p))]


@pytest.mark.parametrize("fill", ["spread", "renormalize"])
@pytest.mark.parametrize("k", [1, 7, 11])
def test_equals_the_equation_written_as_a_loop(fill, k):
    expected = 0.0
    for s, t in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        total = sum(math.exp(value / 2.5) for value in s)
        for z, q in zip(s, slow_label(t, k, 2.5, fill), strict=True):
            expected -= q * (z / 2.5 - math.log(total)) / 4
    loss = topk_labels(STUDENT, TEACHER, k=k, temperature=2.5, fill=fill)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("fill", ["spread", "renormalize"])
def test_all_classes_kept_are_the_soft_label(fill):
    loss = topk_labels(STUDENT, TEACHER, k=12, fill=fill)
    torch.testing.assert_close(loss, soft_label(STUDENT, TEACHER))


def test_of_equal_logits_the_lower_classes_are_kept():
    index, value = largest(torch.zeros(3, 1000), k=4)
    assert index.tolist() == [[0, 1, 2, 3]] * 3
    assert value.tolist() == [[pytest.approx(1e-3)] * 4] * 3
    assert largest(torch.tensor([[1.0, 3.0, 2.0, 3.0]]), k=3)[0].tolist() == [[1, 3, 2]]


@pytest.mark.parametrize("fill", ["spread", "renormalize"])
def test_values_of_half_precision_never_give_a_negative_or_undefined_label(fill):
    value = torch.tensor([[0.7, 0.3005], [0.0, 0.0]], dtype=torch.float16)
    labels = spread(torch.tensor([[4, 2], [0, 1]]), value, num_classes=5, fill=fill)
    assert labels.dtype == torch.float32
    assert labels.min() == 0
    assert labels[0, [0, 1, 3]].tolist() == [0.0, 0.0, 0.0]
    assert labels.isfinite().all()


def test_small_unsigned_classes_are_taken_as_they_are_stored():
    index = torch.tensor([[40_000, 2]], dtype=torch.int32).to(torch.uint16)
    labels = spread(index, torch.tensor([[0.75, 0.25]]), num_classes=50_000)
    assert labels.nonzero()[:, 1].tolist() == [2, 40_000]


@pytest.mark.parametrize("fill", ["spread", "renormalize"])
def test_the_contract_holds_with_both_fills(fill):
    check_contract(TopKLabels, fill=fill, k=5)


def test_gradient_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(
        lambda logits: topk_labels(logits, TEACHER, k=5, temperature=2.0),
        STUDENT.clone().requires_grad_(),
    )


def test_neither_labels_nor_their_absence_matter():
    criterion = TopKLabels(k=5)
    value = criterion(STUDENT, TEACHER, {})
    mixed = {"label": torch.zeros(4), "mixed_labels": torch.zeros(4, 2)}
    assert value == criterion(STUDENT, TEACHER, mixed)


def test_more_than_there_are_classes_is_refused():
    with pytest.raises(UserError, match="k is 10, but there are 7 classes; set k to at most 7"):
        TopKLabels().check_shapes(((7,),), ((7,),))
    with pytest.raises(UserError, match="k is 3, but there are 2 classes"):
        spread(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3), num_classes=2)
    with pytest.raises(UserError, match="k is 13, but there are 12"):
        largest(TEACHER, k=13)


def test_classes_and_probabilities_of_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"one shape \[N, k\], got \[2, 3\] and \[2, 2\]"):
        spread(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 2), num_classes=9)


def test_an_unknown_fill_is_refused():
    with pytest.raises(UserError, match="fill: wanted 'spread' or 'renormalize', got 'other'"):
        spread(torch.zeros(1, 2).long(), torch.ones(1, 2), num_classes=3, fill="other")
    with pytest.raises(UserError, match="fill"):
        TopKLabels(fill="zero")
