"""Any data set of PyTorch's kind, by its import path: read as it is, or refused in one line."""

import random

import numpy as np
import pytest
import torch
from kd_cls.data import DeviceLoader
from kd_cls.data.augment import Flip
from kd_cls.train import main
from kd_core.config.build import build
from kd_core.data.worker_loader import WorkerLoader
from kd_core.errors import UserError
from kd_core.experiment.builder import DATA
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset


def pixels(number):
    """Return an image of 10 x 8 pixels that names its number in every one, with a ramp in green."""
    image = np.full((8, 10, 3), number, dtype=np.uint8)
    image[..., 1] = np.arange(10) * 5
    return image


FORMS = {
    "pil": Image.fromarray,
    "array": lambda image: image,
    "float_array": lambda image: image / 255,
    "tensor": lambda image: torch.from_numpy(image).permute(2, 0, 1),
    "float": lambda image: torch.from_numpy(image).permute(2, 0, 1) / 255,
    "bytes": lambda image: torch.from_numpy(image).permute(2, 0, 1).float(),
    "normalised": lambda image: torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1,
    "long": lambda image: torch.from_numpy(image).permute(2, 0, 1).long(),
    "swapped": lambda image: image.transpose(2, 0, 1),
    "text": lambda image: "a.png",
}


class Own(Dataset):
    """Items of one form; item n is of class n % 3."""

    def __init__(self, form="pil", count=9, *, start=0, as_dict=False, label="int", items=2):
        self.form, self.count, self.start = FORMS[form], count, start
        self.as_dict, self.label, self.items = as_dict, label, items
        self.read = 0

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if not 0 <= number < self.count:
            raise IndexError(number)
        self.read += 1
        image, of = self.form(pixels(number + self.start)), number % 3
        label = {
            "int": of,
            "numpy": np.int64(of),
            "tensor": torch.tensor(of),
            "several": [1.0, float(of == 1), 0.0],
            "text": "cat",
            "float": 1.5,
            "large": of + 5 * (number == 4),
        }[self.label]
        if self.as_dict:
            return {"image": image, "label": label}
        return (image, label, number)[: self.items]


class Listed(Own):
    """Lists its labels as torchvision's sets do, and shifts them where it is told to."""

    def __init__(self, shift=0, **options):
        super().__init__(**options)
        self.targets = [(number + shift) % 3 for number in range(self.count)]
        self.classes = ["ant", "bee", "cow"]


class Drawing(Own):
    """Mirrors its images at random."""

    def __getitem__(self, number):
        image, label = super().__getitem__(number)
        return image.transpose(
            Image.Transpose.FLIP_LEFT_RIGHT
        ) if random.random() < 0.5 else image, label


class Failing(Own):
    def __getitem__(self, number):
        raise ZeroDivisionError("by zero")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


def subset(count: int = 6) -> Subset:
    """Return a part of a set, as `random_split` gives it."""
    return Subset(Own(), list(range(3, 3 + count)))


def silent(count=6):
    return Own(count=count)


def node(name="Own", **options):
    return {"type": globals()[name], **options}


def read(train=None, test=None, **options):
    sizes = {"image_size": 8, "workers": 0, **options}
    parts = {"train": train or node(), "test": test or node(count=3, start=50)}
    return build({"type": "kd_cls.data.dataset", **parts, **sizes}, "data")


def refused(*args, **options):
    with pytest.raises(UserError) as caught:
        list(read(*args, **options).train.epoch(0))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def numbers(loader):
    """Return what red says of each image of an epoch, by index."""
    batches = list(loader.epoch(0))
    index = torch.cat([batch["index"] for batch in batches])
    red = torch.cat([batch["image"][:, 0, 0, 0] for batch in batches])
    return dict(zip(index.tolist(), red.tolist(), strict=True))


class TestItems:
    @pytest.mark.parametrize("form", ["pil", "array", "float_array", "tensor", "float"])
    @pytest.mark.parametrize("as_dict", [False, True])
    @pytest.mark.parametrize("resident", [True, False])
    def test_images_of_every_form_are_the_same_bytes(self, form, as_dict, resident):
        splits = read(node(form=form, as_dict=as_dict), resident=resident, batch_size=4)
        assert isinstance(splits.train, DeviceLoader if resident else WorkerLoader)
        expected = torch.from_numpy(pixels(0)[:, 1:9]).permute(2, 0, 1)
        images = {}
        for batch in splits.train.epoch(1):
            assert (batch["image"].dtype, batch["label"].dtype) == (torch.uint8, torch.int64)
            assert torch.equal(batch["label"], batch["index"] % 3)
            images |= dict(zip(batch["index"].tolist(), batch["image"], strict=True))
        assert sorted(images) == list(range(9))
        assert all(torch.equal(image[1], expected[1]) for image in images.values())
        assert [int(images[n][0, 0, 0]) for n in range(9)] == list(range(9))

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            ("bytes", r"floats from 0 to 4[0-9]; wanted uint8, or floats in \[0, 1\].*divide by"),
            ("normalised", "floats from -1 to .*leave its normalisation out"),
            ("long", "numbers of int64; wanted uint8"),
            ("swapped", r"a ndarray \[3, 8, 10\]; wanted \[H, W, channels\]"),
            ("text", "is a str; wanted a PIL image"),
        ],
    )
    def test_other_images_are_refused_with_their_item(self, form, message):
        with pytest.raises(
            UserError, match=rf"data\.train: Own\[\d\]: its image .*{message}|{message}"
        ):
            list(read(node(form=form)).train.epoch(0))

    @pytest.mark.parametrize("channels", [1, 2, 4])
    def test_tensors_of_one_channel_are_grey_and_others_are_refused(self, channels, monkeypatch):
        monkeypatch.setattr(
            Own, "__getitem__", lambda self, n: (torch.zeros(channels, 8, 8), n % 3)
        )
        if channels == 1:
            assert read().train.images.shape == (9, 3, 8, 8)
        else:
            assert f"Tensor [{channels}, 8, 8]; wanted [channels, H, W] of 1 or 3" in refused()

    def test_a_photo_that_lies_is_turned(self, monkeypatch):
        def item(self, number):
            photo = Image.new("RGB", (8, 8))
            photo.putpixel((0, 0), (200, 0, 0))
            photo.getexif()[0x0112] = 6
            return photo, number % 3

        monkeypatch.setattr(Own, "__getitem__", item)
        assert read().train.images[0, 0, 0].tolist() == [0] * 7 + [200]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"items": 1}, r"data\.train: Own\[0\]: gave a tuple of 1; wanted \(image, label\)"),
            ({"items": 3}, "gave a tuple of 3"),
            ({"label": "text"}, r"Own\[0\]: its label is 'cat'; wanted a class number"),
            ({"label": "float"}, r"its label is 1\.5; wanted a class number"),
            ({"count": 0}, "has no items by number, or none at all"),
        ],
    )
    def test_other_items_are_refused(self, options, message):
        with pytest.raises(UserError, match=message):
            read(node(**options))

    def test_an_error_of_the_set_is_one_line_with_the_item(self):
        line = refused(node("Failing"))
        assert line.startswith("data.train: Failing[0]: failed (ZeroDivisionError: by zero)")


class TestKinds:
    @pytest.mark.parametrize("name", ["Stream", "pixels", "FORMS", "silent"])
    def test_what_has_no_items_by_number_is_refused_before_it_is_called(self, name):
        assert "data.train.type" in refused(node(name))

    def test_a_set_in_the_place_of_data_is_told_where_it_goes(self):
        with pytest.raises(
            UserError, match=r"a torch.utils.data.Dataset goes into `kd_cls\.data\."
        ):
            build(node(), "data", kind=DATA)

    def test_a_part_of_a_set_is_read(self):
        assert numbers(read(node("subset")).test) == {0: 50, 1: 51, 2: 52}
        assert numbers(read(node("subset", count=4)).train) == {n: n + 3 for n in range(4)}


class TestLabels:
    @pytest.mark.parametrize("label", ["int", "numpy", "tensor"])
    def test_numbers_of_any_type_are_classes(self, label):
        splits = read(node(label=label))
        assert splits.labels.tolist() == [0, 1, 2] * 3
        assert splits.classes == ("0", "1", "2")

    def test_listed_labels_are_taken_if_the_items_say_the_same(self):
        splits = read(node("Listed"), node("Listed", shift=1))
        assert splits.classes == ("ant", "bee", "cow")
        assert splits.labels.tolist() == splits.test.labels.tolist() == [0, 1, 2] * 3

    def test_a_label_of_no_class_is_named_and_names_can_be_given(self):
        assert "data.test: item 4 has label 6, which is not one of the 3 classes" in refused(
            test=node(label="large")
        )
        names = list("abcdefg")
        line = refused(test=node(label="large"), classes=names)
        assert "no image of class 'd' (4 of 7 classes have none); add images" in line
        splits = read(test=node(label="large"), classes=names, allow_missing_classes=True)
        assert splits.classes == tuple(names)

    def test_several_labels_an_image_are_floats_of_each_class(self):
        several = node(label="several")
        splits = read(several, several)
        assert splits.labels.shape == (9, 3)
        assert next(splits.test.epoch(0))["label"][1].tolist() == [1.0, 1.0, 0.0]
        assert refused(several, several, balanced=True).startswith("data.balanced: needs one class")
        assert "its labels are lists of 3" in refused(
            test=several, train=node(label="several"), classes=["a"]
        )


class TestParts:
    def test_parts_are_held_out_and_limited_by_class(self):
        splits = read(val_fraction=0.3, test=node(count=6))
        assert sorted(splits.val.labels.tolist()) == [0, 1, 2]
        seen = numbers(splits.val)
        assert sorted([*seen.values(), *numbers(splits.train).values()]) == list(range(9))
        limited = read(limit_per_class=1, resident=False)
        assert numbers(limited.train) == {0: 0, 1: 1, 2: 2}

    def test_a_validation_set_of_its_own_is_read(self):
        assert numbers(read(val=node(count=3, start=20)).val) == {0: 20, 1: 21, 2: 22}

    def test_batches_depend_on_neither_workers_nor_start(self):
        options = {
            "resident": False,
            "batch_size": 2,
            "augment": [{"type": "kd_cls.data.augment.Flip"}],
        }
        alone, helped = (read(node("Drawing"), workers=count, **options).train for count in (0, 1))
        assert isinstance(alone.augment[0], Flip)
        expected = list(alone.epoch(2))
        for batch, other in zip(helped.epoch(2, start=2), expected[2:], strict=True):
            assert all(torch.equal(batch[name], other[name]) for name in batch)
        other = [batch["image"] for batch in alone.epoch(3)]
        assert not all(map(torch.equal, other, (batch["image"] for batch in expected)))

    def test_a_set_that_draws_is_read_again_in_each_epoch(self):
        assert isinstance(read(node("Drawing")).train, WorkerLoader)
        assert "data.train gives another one each time" in refused(node("Drawing"), resident=True)


def test_a_network_trains_on_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        """
sizes = dict(type="torchvision.datasets.FakeData", image_size=(3, 32, 32), num_classes=2)
data = dict(type="kd_cls.data.dataset", train=dict(sizes, size=12), test=dict(sizes, size=8),
            image_size=32, batch_size=4, balanced=True, workers=0)
del sizes
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
optimizer = dict(type="torch.optim.SGD", lr=0.05)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=1, loggers=[])
"""
    )
    assert main(["own.py", "--work-dir", "run"]) == 0
