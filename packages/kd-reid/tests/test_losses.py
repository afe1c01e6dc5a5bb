"""The losses on embeddings and identities are torchreid's."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.errors import UserError
from kd_core.testing import signals
from kd_reid.losses import BatchHardTriplet, batch_hard_triplet
from torch.autograd import gradcheck

EMBEDDING = signals((8, 5), 0.7, 0.4)
LABEL = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


def slowly(embedding, label, margin):
    """Take the hardest of all triplets, one image after the other."""
    losses = []
    for i, anchor in enumerate(embedding):
        distances = [(anchor - other).square().sum().clamp(min=1e-12).sqrt() for other in embedding]
        same = [distance for j, distance in enumerate(distances) if label[j] == label[i]]
        others = [distance for j, distance in enumerate(distances) if label[j] != label[i]]
        losses.append(torch.relu(max(same) - min(others) + margin))
    return sum(losses) / len(losses)


def test_it_equals_the_reference(golden):
    golden(batch_hard_triplet(EMBEDDING, LABEL), 2.371841353131994)
    golden(BatchHardTriplet()(EMBEDDING, LABEL), 2.371841353131994)


def test_the_smoothed_cross_entropy_is_torchreid_s(golden):
    logits = signals((4, 10), 0.7, 0.3, 3)
    label = torch.tensor([3, 0, 7, 3])
    golden(F.cross_entropy(logits, label, label_smoothing=0.1), 3.37229084024865)


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
def test_it_equals_the_loop(margin):
    embedding = EMBEDDING.clone().requires_grad_()
    mine, loop = (
        batch_hard_triplet(embedding, LABEL, margin=margin),
        slowly(embedding, LABEL, margin),
    )
    assert mine.item() == pytest.approx(loop.item(), abs=1e-12)
    gradients = [torch.autograd.grad(loss, embedding)[0] for loss in (mine, loop)]
    assert torch.allclose(*gradients, atol=1e-9)


def test_its_gradient_is_right():
    rows = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    assert gradcheck(lambda x: batch_hard_triplet(x, label, margin=5.0), rows.requires_grad_())


def test_one_identity_alone_costs_nothing_and_an_empty_batch_neither():
    rows = EMBEDDING.clone().requires_grad_()
    for loss in (batch_hard_triplet(rows, 0 * LABEL), batch_hard_triplet(rows[:0], LABEL[:0])):
        assert loss.item() == 0
        assert torch.autograd.grad(loss, rows)[0].abs().sum() == 0


def test_a_negative_margin_is_refused():
    with pytest.raises(UserError, match="margin: wanted a number of at least 0"):
        BatchHardTriplet(-0.1)
