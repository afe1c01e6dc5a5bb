"""Balanced epochs: every class equally often, a function of seed and epoch."""

import pytest
import torch
from kd_core.data.balanced import BalancedSampler
from kd_core.data.device_loader import DeviceLoader
from kd_core.errors import UserError

LABELS = torch.tensor([0] * 20 + [1] * 3 + [3] * 4)  # no sample of class 2


def classes_of(order):
    return torch.bincount(LABELS[order % len(LABELS)], minlength=4)


@pytest.mark.parametrize("epoch", range(4))
def test_classes_with_samples_have_equally_many_places(epoch):
    order = BalancedSampler(LABELS, 3).order(epoch)
    assert len(order) == len(LABELS)
    assert classes_of(order).tolist() == [9, 9, 0, 9]
    times = torch.bincount(order % len(LABELS), minlength=len(LABELS))
    assert times[20:23].tolist() == [3, 3, 3]  # as even as possible
    assert sorted(times[23:].tolist()) == [2, 2, 2, 3]
    assert times[:20].max() == 1


def test_what_is_left_over_goes_to_other_classes_in_other_epochs():
    sampler = BalancedSampler(LABELS[:-1])
    counts = [tuple(torch.bincount(LABELS[sampler.order(e) % 26]).tolist()) for e in range(12)]
    assert {count for epoch in counts for count in epoch} == {0, 8, 9}
    assert len(set(counts)) == 3


def test_repetitions_are_numbered_and_orders_differ():
    sampler, again, other = (BalancedSampler(LABELS, seed) for seed in (1, 1, 2))
    assert len(set(sampler.order(0).tolist())) == len(LABELS)
    assert torch.equal(sampler.order(5), again.order(5))
    assert not torch.equal(sampler.order(5), sampler.order(6))
    assert not torch.equal(sampler.order(5), other.order(5))


def test_a_loader_resumes_and_shards_it():
    images = torch.arange(27, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    sampler = BalancedSampler(LABELS)
    loader = DeviceLoader(images, LABELS, batch_size=4, shuffle=True, sampler=sampler)
    whole = [batch["index"] for batch in loader.epoch(2)]
    assert torch.equal(torch.cat(whole), sampler.order(2) % 27)
    assert torch.equal(next(loader.epoch(2, start=3))["index"], whole[3])
    ranks = zip(*(loader.shard(rank, 2).epoch(2) for rank in range(2)), strict=True)
    joined = [torch.cat([batch["index"] for batch in parts]) for parts in ranks]
    assert all(map(torch.equal, joined, whole))


@pytest.mark.parametrize("labels", [torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4)])
def test_samples_without_exactly_one_class_are_refused(labels):
    with pytest.raises(UserError, match=r"one class; leave data\.balanced out"):
        BalancedSampler(labels)
