"""Memory banks in float16 are half as large, and losses are the same to 1e-3."""

import pytest
import torch
from kd_core.criteria.banks import products, products_with_all
from kd_core.criteria.crd import CRD
from kd_core.criteria.queue_kl import SEED, QueueKL, QueueTokenKL
from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.testing import signals

SAMPLES, STEPS, BATCH = 600, 8, 16
SIDES = ((16,),), ((24,),)
WITH_MAPS = ((16,), (4, 3, 3)), ((24,), (5, 3, 3))
KINDS = {
    "small CRD": (CRD, SIDES, {"labels": torch.arange(SAMPLES) % 30}),
    "large CRD": (CRD, SIDES, {"labels": torch.arange(SAMPLES) % 30, "num_negatives": 40}),
    "QueueKL": (QueueKL, SIDES, {"num_samples": SAMPLES, "queue_size": 64}),
    "QueueTokenKL": (QueueTokenKL, WITH_MAPS, {"num_samples": SAMPLES, "queue_size": 64}),
    "SEED": (SEED, SIDES, {"queue_size": 64, "teacher_temperature": 0.05}),
}


def built(kind, precision, **changes):
    criterion, shapes, options = KINDS[kind]
    torch.manual_seed(0)
    return criterion(*shapes, **{**options, "bank_precision": precision, **changes})


def batches(kind, start=0):
    _, shapes, _ = KINDS[kind]
    for number in range(start, STEPS):
        generator = torch.Generator().manual_seed(number)
        index = torch.randperm(SAMPLES, generator=generator)[:BATCH]
        sides = [
            [torch.randn(BATCH, *shape, generator=generator) for shape in side] for side in shapes
        ]
        student, teacher = (side if len(side) > 1 else side[0] for side in sides)
        yield student, teacher, {"index": index}


def train(kind, criterion, start=0, stop=STEPS):
    """Losses and gradients of some steps of the adapters."""
    optimizer = torch.optim.SGD(criterion.parameters(), lr=1e-3)
    found = []
    for number, (student, teacher, batch) in enumerate(batches(kind, start), start):
        if number == stop:
            break
        torch.manual_seed(number)  # of the negatives
        optimizer.zero_grad()
        loss = criterion(student, teacher, batch)
        loss.backward()
        optimizer.step()
        gradients = [p.grad.flatten() for p in criterion.parameters() if p.grad is not None]
        found.append((loss.detach(), torch.cat(gradients)))
    return found


def bank_of(criterion):
    return criterion.memories if isinstance(criterion, CRD) else criterion.queue


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_of_several_steps_are_equal_to_a_thousandth(kind):
    whole, half = built(kind, "fp32"), built(kind, "fp16")
    pairs = list(zip(train(kind, whole), train(kind, half), strict=True))
    for (loss, gradient), (other, its_gradient) in pairs:
        assert float(other) == pytest.approx(float(loss), rel=1e-3)
        assert (gradient - its_gradient).norm() <= 1e-3 * gradient.norm()
    assert any(loss != other for (loss, _), (other, _) in pairs)  # the bank is in float16
    assert bank_of(half).nbytes * 2 == bank_of(whole).nbytes
    torch.testing.assert_close(bank_of(half).float(), bank_of(whole), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["large CRD", "SEED"])
def test_a_resumed_bank_is_the_uninterrupted_one_bit_for_bit(kind, tmp_path):
    whole, first, resumed = (built(kind, "fp16") for _ in range(3))
    losses = train(kind, whole)
    train(kind, first, stop=3)
    checkpoint.save(first.state_dict(), tmp_path / "state.pth")
    resumed.load_state_dict(checkpoint.load(tmp_path / "state.pth", remedy=""))
    for one, other in zip(losses[3:], train(kind, resumed, start=3), strict=True):
        assert torch.equal(one[0], other[0])
    assert bank_of(resumed).dtype == torch.float16
    assert torch.equal(bank_of(resumed), bank_of(whole))


@pytest.mark.parametrize("kind", ["small CRD", "large CRD"])
def test_the_backward_keeps_the_rows_in_float16(kind):
    kept = {}
    for precision in ("fp32", "fp16"):
        criterion = built(kind, precision)
        (student, teacher, batch), *_ = batches(kind)
        sizes = {}
        keep = torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: sizes.update({x.data_ptr(): x.nbytes}) or x, lambda x: x
        )
        with keep:
            criterion(student, teacher, batch)
        kept[precision] = sum(sizes.values())
    assert kept["fp16"] < 0.7 * kept["fp32"]


def test_products_in_parts_are_those_of_the_whole_and_so_is_the_gradient(monkeypatch):
    monkeypatch.setattr("kd_core.criteria.banks._MOST", 2 * 5 * 4)
    rows, vectors = signals((7, 5, 4), 0.3, 0.1), signals((7, 4), 0.9, 0.2).requires_grad_()
    found = products(rows.half(), vectors)
    expected = torch.einsum("nkd,nd->nk", rows.half().double(), vectors)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(lambda v: products(rows.half(), v), vectors)
    assert products(rows.half()[:0], vectors[:0]).shape == (0, 5)
    assert torch.autograd.gradcheck(lambda v: products_with_all(rows[0].half(), v), vectors)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("large CRD", {"momentum": 0.99}, "CRD: with momentum=0.99 .* set momentum=0.9 or less"),
        ("large CRD", {"temperature": 0.01}, "CRD: .* temperature of 0.01 magnifies"),
        (
            "SEED",
            {"teacher_temperature": 1e-4},
            "SEED: .*temperature of 0.0001 magnifies; set 0.02",
        ),
        (
            "QueueKL",
            {"bank_precision": "fp61"},
            "bank_precision: wanted 'fp32' or 'fp16', got 'fp61'",
        ),
    ],
)
def test_what_float16_cannot_hold_is_refused(kind, changes, message):
    with pytest.raises(UserError, match=message):
        built(kind, "fp16", **{"bank_precision": "fp16", **changes})
