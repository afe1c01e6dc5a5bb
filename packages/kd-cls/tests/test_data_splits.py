import inspect

import pytest
import torch
from kd_cls import data
from kd_cls.data.augment import RICAP, CropFlip, Flip, Mixup, Views
from kd_cls.data.splits import check_labels
from kd_core.config.build import build
from kd_core.errors import UserError

SYNTHETIC = "kd_cls.data.synthetic"


def pixels(loader) -> list[bytes]:
    return [image.numpy().tobytes() for image in loader.images]


def test_val_is_disjoint_stratified_and_complete():
    whole = data.synthetic(num_classes=4, num_train=80, image_size=4)
    split = data.synthetic(num_classes=4, num_train=80, image_size=4, val_fraction=0.2)
    assert split.val is not None
    assert torch.bincount(split.val.labels).tolist() == [4] * 4
    assert split.num_samples == 64
    assert sorted(pixels(split.train) + pixels(split.val)) == sorted(pixels(whole.train))


def test_val_is_a_function_of_the_data_seed():
    first, again, other = (
        data.synthetic(num_train=80, image_size=4, val_fraction=0.25, data_seed=seed)
        for seed in (1, 1, 2)
    )
    assert pixels(first.val) == pixels(again.val)
    assert pixels(first.val) != pixels(other.val)


def test_val_and_test_are_neither_shuffled_nor_augmented():
    splits = data.synthetic(num_train=80, val_fraction=0.25, augment=[CropFlip()])
    for loader in (splits.val, splits.test):
        batch = next(loader.epoch(0))
        assert torch.equal(batch["image"], loader.images[: len(batch["image"])])
        assert "crop_id" not in batch


def test_val_that_would_empty_a_class_is_refused():
    with pytest.raises(UserError, match=r"class 'class 0' has 1 training images, too few"):
        data.synthetic(num_classes=10, num_train=10, val_fraction=0.1)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_val_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(
        UserError, match=r"val_fraction: wanted a number (of at least 0|less than 1)"
    ):
        data.synthetic(val_fraction=fraction)


def test_limit_keeps_the_first_of_each_class():
    whole = data.synthetic(num_classes=3, num_train=30)
    limited = data.synthetic(num_classes=3, num_train=30, limit_per_class=2)
    assert torch.equal(limited.train.images, whole.train.images[:6])
    assert limited.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(limited.test.labels) == len(whole.test.labels)


def test_balanced_training_batches_leave_the_other_parts_alone():
    options = {"num_classes": 3, "num_train": 60, "image_size": 4, "val_fraction": 0.3}
    plain, balanced = (data.synthetic(**options, balanced=flag) for flag in (False, True))
    assert not torch.equal(*(next(s.train.epoch(0))["index"] for s in (plain, balanced)))
    assert balanced.val.sampler is balanced.test.sampler is None
    with pytest.raises(UserError, match=r"balanced repeats images already; set data\.copies=1"):
        data.synthetic(balanced=True, copies=2)


class TestRandomLabels:
    def test_are_independent_of_the_true_ones_and_even(self):
        true = data.synthetic(num_classes=5, num_train=5000, image_size=1)
        drawn = data.synthetic(num_classes=5, num_train=5000, image_size=1, random_labels=True)
        both = torch.bincount(true.labels * 5 + drawn.labels, minlength=25)
        assert both.sum() == 5000
        assert both.min() > 150
        assert both.max() < 250
        assert torch.equal(true.train.images, drawn.train.images)

    def test_are_drawn_once_from_the_data_seed(self):
        options = {"num_train": 200, "image_size": 1, "random_labels": True}
        one, again, other = (data.synthetic(**options, data_seed=seed) for seed in (0, 0, 1))
        assert torch.equal(one.labels, again.labels)
        assert not torch.equal(one.labels, other.labels)
        for epoch in (0, 1):
            for batch in one.train.epoch(epoch):
                assert torch.equal(batch["label"], one.labels[batch["index"]])

    def test_are_of_the_training_set_alone(self):
        options = {"num_train": 200, "image_size": 1, "val_fraction": 0.25}
        true, drawn = (data.synthetic(**options, random_labels=flag) for flag in (False, True))
        assert torch.equal(true.val.labels, drawn.val.labels)
        assert torch.equal(true.test.labels, drawn.test.labels)
        assert not torch.equal(true.labels, drawn.labels)
        assert pixels(true.train) == pixels(drawn.train)

    def test_of_an_image_do_not_depend_on_what_is_held_out(self):
        options = {"num_train": 200, "image_size": 4, "random_labels": True}
        whole, part = (data.synthetic(**options, val_fraction=f) for f in (0.0, 0.25))
        known = dict(zip(pixels(whole.train), whole.labels.tolist(), strict=True))
        assert [known[image] for image in pixels(part.train)] == part.labels.tolist()


@pytest.mark.parametrize(
    "augment", [[Mixup(), CropFlip()], [Views([[], [RICAP()]])]], ids=["early", "view"]
)
def test_mixing_at_the_wrong_place_is_refused_before_anything_is_read(augment):
    with pytest.raises(UserError, match="must be the last of the list"):
        data.cifar100(root="nowhere", augment=augment)


def test_a_config_node_builds_the_data_with_its_augmentations():
    splits = build(
        {
            "type": SYNTHETIC,
            "num_classes": 5,
            "batch_size": 8,
            "augment": [{"type": "kd_cls.data.augment.Flip"}],
            "mean": [0.1, 0.2, 0.3],
        }
    )
    assert splits.num_classes == 5
    assert splits.num_samples == len(splits.labels) == 64
    assert splits.train.batch_size == 8
    assert isinstance(splits.train.augment[0], Flip)
    assert splits.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("name", [n for n in data.__all__ if n.islower()])
def test_a_misspelt_option_names_the_nearest_one(name):
    assert "batch_size" in inspect.signature(getattr(data, name)).parameters
    with pytest.raises(UserError, match=r"no parameter 'batchsize'; did you mean 'batch_size'"):
        build({"type": f"kd_cls.data.{name}", "batchsize": 3})


def test_a_label_that_is_no_class_is_named_with_its_sample():
    with pytest.raises(UserError, match=r"here: label 7 of sample 1 is not one of the 3 classes"):
        check_labels(torch.tensor([0, 7, 2]), 3, "here")
