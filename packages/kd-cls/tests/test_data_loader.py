import pytest
import torch
from kd_cls.data import DeviceLoader
from kd_cls.data.augment import CropFlip, Flip, Mixup, PerImage, Rotate
from kd_core.data.device_loader import _AT_ONCE
from kd_core.data.sampling import Sampling
from kd_core.errors import UserError
from torchvision.transforms import v2


def loader(count: int = 23, **options) -> DeviceLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 6, 6), dtype=torch.uint8, generator=generator)
    options = {"batch_size": 5, "shuffle": True, "data_seed": 3, **options}
    return DeviceLoader(images, torch.arange(count) % 4, **options)


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[name], other[name]) for name in batch)


def test_an_epoch_visits_every_sample_once_in_its_own_order():
    orders = [torch.cat([b["index"] for b in loader().epoch(e)]) for e in (0, 1)]
    assert all(torch.equal(order.sort().values, torch.arange(23)) for order in orders)
    assert not torch.equal(*orders)


def test_images_and_labels_belong_to_their_index():
    data = loader()
    for batch in data.epoch(0):
        assert torch.equal(batch["image"], data.images[batch["index"]])
        assert torch.equal(batch["label"], batch["index"] % 4)


@pytest.mark.parametrize("augment", [[CropFlip()], [Rotate(9)], [PerImage(v2.RandAugment())]])
def test_batches_are_the_same_wherever_the_epoch_is_entered(augment):
    data = loader(augment=augment)
    assert_same(list(data.epoch(7))[3:], list(data.epoch(7, start=3)))
    assert list(data.epoch(7, start=5)) == []


def test_augmentation_of_a_sample_depends_on_seed_and_epoch_but_not_on_its_batch():
    def crops(epoch, **options):
        batches = list(loader(augment=[CropFlip()], **options).epoch(epoch))
        order = torch.cat([batch["index"] for batch in batches]).argsort()
        return torch.cat([batch["crop_id"] for batch in batches])[order]

    assert torch.equal(crops(2), crops(2, batch_size=9, shuffle=False))
    assert not torch.equal(crops(2), crops(3))
    assert not torch.equal(crops(2), crops(2, data_seed=4))


@pytest.mark.parametrize(("world_size", "shuffle"), [(2, True), (3, True), (7, False)])
def test_the_ranks_parts_joined_are_the_batch_of_one_process(world_size, shuffle):
    data = loader(augment=[CropFlip()], shuffle=shuffle)
    ranks = [data.shard(rank, world_size) for rank in range(world_size)]
    assert all(rank.batch_size == 5 and len(rank) == len(data) for rank in ranks)
    parts = zip(*(rank.epoch(1) for rank in ranks), strict=True)
    joined = [{name: torch.cat([p[name] for p in part]) for name in part[0]} for part in parts]
    assert_same(joined, list(data.epoch(1)))


def test_test_samples_are_sharded_without_duplicates():
    data = loader(shuffle=False)
    seen = [batch["index"] for rank in range(4) for batch in data.shard(rank, 4).epoch(0)]
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(23))


def test_drop_last_leaves_out_the_short_batch():
    assert len(loader()) == len(list(loader().epoch(0))) == 5
    assert [len(b["label"]) for b in loader(drop_last=True).epoch(0)] == [5] * 4
    assert len(loader(drop_last=True)) == 4


@pytest.mark.parametrize("ordered", [{}, {"shuffle": False}], ids=["shuffled", "in order"])
def test_a_last_batch_of_one_sample_a_process_is_left_out_where_asked(ordered):
    whole = loader(batch_size=11, **ordered)  # 11, 11 and 1
    assert [len(b["label"]) for b in whole.without_single().epoch(0)] == [11, 11]
    assert_same(list(whole.without_single().epoch(2, 1)), list(whole.epoch(2, 1))[:1])
    parts = [loader(batch_size=10, **ordered).without_single().shard(r, 2) for r in (0, 1)]
    assert [[len(b["label"]) for b in part.epoch(0)] for part in parts] == [[5, 5], [5, 5]]
    assert len(loader().without_single()) == 5  # the last has 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 24, "drop_last": True}, "no batch can be made of 23 samples"),
        ({"batch_size": 0}, "batch_size: wanted a number greater than 0"),
        ({"batch_size": 1.5}, "batch_size: wanted a whole number"),
    ],
)
def test_a_loader_without_batches_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        loader(**options)


def test_loading_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    list(loader(augment=[CropFlip(), PerImage(v2.RandAugment())]).epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_of_one_batch_are_slices_of_the_epoch_s():
    index = torch.randperm(20)
    whole, part = Sampling(index, 1, 2), Sampling(index, 1, 2)[5:9]
    for _ in range(2):
        assert torch.equal(whole.below(1000)[5:9], part.below(1000))
        assert whole.seeds()[5:9] == part.seeds()
    assert torch.equal(whole.uniform(-1, 1)[5:9], part.uniform(-1, 1))


def test_draws_are_uniform_in_their_range_and_change_with_each_call():
    sampling = Sampling(torch.arange(4000), 0, 0)
    first, second = sampling.uniform(-2, 4), sampling.uniform(-2, 4)
    assert first.min() >= -2
    assert first.max() < 4
    torch.testing.assert_close(first.mean(), torch.tensor(1.0), atol=0.1, rtol=0)
    assert not torch.equal(first, second)
    assert set(sampling.below(3).tolist()) == {0, 1, 2}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_the_gpu_equal_those_of_the_host():
    options = {"augment": [CropFlip(), Rotate(9)]}
    on_gpu = [{k: v.cpu() for k, v in b.items()} for b in loader(**options).to("cuda").epoch(0)]
    assert_same(on_gpu, list(loader(**options).epoch(0)))


def test_a_last_training_batch_too_small_for_all_ranks_is_left_out():
    images, labels = torch.zeros(9, 3, 4, 4, dtype=torch.uint8), torch.arange(9)
    for shuffle, sizes in ((True, [2, 2]), (False, [2, 2, 1])):
        loader = DeviceLoader(images, labels, batch_size=4, shuffle=shuffle)
        assert len(loader) == 3
        batches = [list(loader.shard(rank, 2).epoch(0)) for rank in (0, 1)]
        assert len(loader.shard(1, 2)) == len(sizes)
        assert [len(batch["label"]) for batch in batches[1]] == sizes


RECIPES = [[], [CropFlip(2)], [CropFlip(1), Flip()], [Rotate(20), Flip()]]


@pytest.mark.parametrize("augment", RECIPES)
def test_batches_augmented_at_once_are_those_augmented_alone(augment, monkeypatch):
    data = loader(count=58, augment=augment)
    alone = list(data.epoch(1, start=1))
    monkeypatch.setitem(_AT_ONCE, "cpu", 4)
    assert len(alone) == 11
    assert_same(alone, list(data.epoch(1, start=1)))


@pytest.mark.parametrize("shards", [1, 2])
def test_mixing_and_shards_stay_within_their_batch(shards, monkeypatch):
    augment = [CropFlip(), Mixup()] if shards == 1 else [CropFlip()]
    data = loader(augment=augment).shard(0, shards)
    alone = list(data.epoch(0))
    monkeypatch.setitem(_AT_ONCE, "cpu", 4)
    assert_same(alone, list(data.epoch(0)))
