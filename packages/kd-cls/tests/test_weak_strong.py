"""Weak and strong copies: every epoch has each image twice, plain and strongly augmented."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from kd_cls.data import DeviceLoader, synthetic
from kd_cls.data.augment import CropFlip
from kd_cls.data.image_folders import image_folder
from kd_cls.stand_ins import data_stand_in
from kd_core.config.build import build
from kd_core.config.node import parse
from kd_core.config.reading import load_config
from kd_core.data.weak_strong import StrongCopies
from kd_core.errors import UserError
from PIL import Image

RECIPES = Path(__file__).parents[3] / "configs/cls/recipes"
COUNT = 10


class Invert:
    """A strong augmentation that is easily seen."""

    def __call__(self, batch, sampling):
        sampling.seeds()
        return {**batch, "image": 255 - batch["image"]}


class Brighten:
    """Adds one random number to every sample."""

    def __call__(self, batch, sampling):
        image = batch["image"] + sampling.below(100)[:, None, None, None]
        return {**batch, "image": image.byte()}


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(100, (COUNT, 3, 8, 8), dtype=torch.uint8, generator=generator)


def loader(augment, batch_size=4, copies=2):
    return DeviceLoader(
        images(),
        torch.arange(COUNT) % 3,
        batch_size=batch_size,
        shuffle=True,
        augment=augment,
        copies=copies,
    )


def rows(loader, epoch=0, start=0):
    """Return (index, image) of every row of an epoch."""
    batches = loader.epoch(epoch, start=start)
    return [
        (index, image)
        for batch in batches
        for index, image in zip(batch["index"].tolist(), batch["image"], strict=True)
    ]


def test_every_image_comes_once_weak_and_once_strong():
    made = loader([StrongCopies([Invert()])])
    assert len(made) == 2 * COUNT // 4
    seen = rows(made)
    assert Counter(index for index, _ in seen) == dict.fromkeys(range(COUNT), 2)
    for index, image in enumerate(images()):
        own = [row for found, row in seen if found == index]
        assert sorted(torch.equal(row, image) for row in own) == [False, True]
        assert sorted(torch.equal(row, 255 - image) for row in own) == [False, True]


def test_labels_stay_with_their_images():
    for batch in loader([StrongCopies([Invert()])]).epoch(0):
        assert torch.equal(batch["label"], batch["index"] % 3)


def test_the_two_copies_are_shuffled_apart_and_again_in_each_epoch():
    made = loader([])
    first, second = ([index for index, _ in rows(made, epoch)] for epoch in (0, 1))
    assert first != second
    assert set(first[:COUNT]) != set(range(COUNT))  # not all weak ones first


def test_the_weak_augmentation_of_the_copies_differs():
    seen = rows(loader([CropFlip(padding=2)]))
    copies = [[row for found, row in seen if found == index] for index in range(COUNT)]
    assert any(not torch.equal(*pair) for pair in copies)


def test_what_follows_draws_other_numbers_than_the_strong_augmentation():
    def added(*augment):
        seen = rows(loader(augment))
        return [int((image.int() - images()[index]).max()) for index, image in seen]

    copies = StrongCopies([Brighten()])
    strong, both = added(copies), added(copies, Brighten())
    pairs = [(first, total - first) for first, total in zip(strong, both, strict=True) if first]
    assert len(pairs) >= COUNT - 1  # a drawn 0 is possible
    assert sum(first == second for first, second in pairs) <= 1


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_a_copy_does_not_depend_on_its_batch(batch_size):
    augment = [CropFlip(padding=2), StrongCopies([Brighten()])]
    one, other = rows(loader(augment)), rows(loader(augment, batch_size))
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in zip(one, other, strict=True))


def test_an_epoch_entered_late_continues_as_it_would_have():
    made = loader([StrongCopies([Brighten()])])
    late = rows(made, start=3)
    assert all(torch.equal(x, y) for (_, x), (_, y) in zip(rows(made)[12:], late, strict=True))


def test_ranks_share_the_copies_out():
    made = loader([StrongCopies([Invert()])])
    parts = [rows(made.shard(rank, 2)) for rank in range(2)]
    assert Counter(index for part in parts for index, _ in part) == dict.fromkeys(range(COUNT), 2)


def test_without_copies_nothing_is_strengthened():
    seen = rows(loader([StrongCopies([Invert()])], copies=1))
    assert all(torch.equal(image, images()[index]) for index, image in seen)


def test_a_count_below_one_is_refused():
    with pytest.raises(UserError, match="copies: wanted a number greater than 0, got 0"):
        loader([], copies=0)


def test_only_training_images_are_copied():
    data = synthetic(num_train=20, num_test=8, val_fraction=0.5, copies=2, batch_size=1)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 10, 8)
    assert data.num_samples == 10  # memories of criteria have one place an image


def test_files_are_copied_too(tmp_path):
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        for shade in (50, 100):
            Image.new("RGB", (8, 8), (shade,) * 3).save(tmp_path / place / f"{shade}.png")
    data = image_folder(
        str(tmp_path),
        image_size=8,
        resident=False,
        workers=0,
        copies=2,
        augment=[StrongCopies([Invert()])],
    )
    shades = Counter(int(image[0, 0, 0]) for _, image in rows(data.train))
    assert shades == {50: 2, 100: 2, 205: 2, 155: 2}


def test_the_recipe_doubles_the_epoch_and_strengthens_half_of_it():
    node = load_config(RECIPES / "weak_strong.py")["data"]
    data = build({"type": "kd_cls.data.synthetic", "num_train": 8, "batch_size": 16, **node})
    assert len(data.train) == 1
    batch = next(data.train.epoch(0))
    assert batch["image"].shape == (16, 3, 32, 32)
    crops = next(
        synthetic(num_train=8, batch_size=16, copies=2, augment=[CropFlip()]).train.epoch(0)
    )
    changed = (batch["image"] != crops["image"]).flatten(1).any(1)
    assert torch.equal(batch["index"], crops["index"])
    assert changed.sum() == 8
    assert sorted(batch["index"][changed].tolist()) == list(range(8))


def test_streamlined_has_one_rate_for_all_students():
    pair = RECIPES.parent / "pairs/resnet32x4_ShuffleV1.py"
    data = RECIPES.parent / "data/cifar100.py"
    assert load_config([data, pair])["optimizer"]["lr"] == 0.01
    config = load_config([data, pair, RECIPES / "streamlined.py"])
    assert config["optimizer"] == {**load_config(data)["optimizer"], "lr": 0.1}
    assert config["data"]["copies"] == 2


def test_a_dry_run_keeps_the_copies():
    config = load_config([RECIPES.parent / "data/cifar100.py", RECIPES / "weak_strong.py"])
    data = data_stand_in(parse(config["data"]))
    assert data["copies"] == 2
