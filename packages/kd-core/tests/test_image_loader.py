"""Loaders of image files, on the device or read in each epoch, and the set that they make up."""

import multiprocessing
import signal
import subprocess
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
import torch
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.folder_loader import FolderLoader
from kd_core.data.image_loader import image_loader, is_resident, packed
from kd_core.data.loader_set import LoaderSet
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError
from PIL import Image

KINDS = {True: DeviceLoader, False: FolderLoader}


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 4), (number, 2 * number, 0)).save(path)
    return packed(str(path) for path in paths)


@pytest.mark.parametrize("resident", [True, False])
def test_both_ways_give_the_same_batches(resident, files):
    loader = image_loader(
        files,
        torch.arange(6),
        lambda image: image,
        resident=resident,
        reading={"image_size": 4, "workers": 0},
        batch_size=4,
        shuffle=True,
        data_seed=3,
    )
    assert type(loader) is KINDS[resident]
    first, second = loader.epoch(1)
    index = torch.cat([first["index"], second["index"]])
    assert sorted(index.tolist()) == list(range(6))
    for batch in (first, second):
        assert torch.equal(batch["image"][:, 1, 0, 0].long(), 2 * batch["index"])
        assert torch.equal(batch["label"], batch["index"])


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system cannot ask who")
def test_a_signal_to_all_processes_of_a_run_does_not_end_its_workers(files):
    others = set(multiprocessing.active_children())
    options = {"image_size": 4, "workers": 2, "batch_size": 1}
    batches = FolderLoader(files, torch.arange(6), lambda image: image, **options).epoch(0)
    assert len(list(islice(batches, 2))) == 2  # one of each worker: both have begun
    for worker in set(multiprocessing.active_children()) - others:
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert len(list(batches)) == 4


@pytest.mark.parametrize(
    ("resident", "images", "size", "resides"),
    [
        ("auto", 9, 2, True),  # 108 bytes
        ("auto", 10, 2, False),
        ("auto", 9, (4, 1), True),
        ("auto", 9, (4, 2), False),
        (True, 10**9, 2, True),
        (False, 0, 2, False),
    ],
)
def test_auto_keeps_what_is_smaller_than_the_limit_on_the_device(resident, images, size, resides):
    assert is_resident(resident, images, size, most=120) is resides


@pytest.mark.parametrize("resident", ["yes", None, 2])
def test_any_other_setting_is_refused(resident):
    with pytest.raises(UserError, match=f"resident .*'auto'.* {resident!r}"):
        is_resident(resident, 1, 1, most=1)


def test_packed_paths_are_bytes_of_one_array():
    found = packed(["a/ä.png", "b.png"])
    assert isinstance(found, np.ndarray)
    assert [path.decode() for path in found.tolist()] == ["a/ä.png", "b.png"]


@dataclass(kw_only=True)
class Own(LoaderSet):
    """A set of a user's own, with a further part and something that is not a loader."""

    test: SplitLoader
    extra: SplitLoader | None = None
    num_classes: int = 3


def loader(count):
    images = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    return DeviceLoader(images, torch.arange(count) % 3, batch_size=2)


def test_the_loaders_of_a_set_are_all_its_attributes_that_are_loaders():
    train, test, extra = loader(4), loader(2), loader(3)
    assert Own(train=train, test=test).loaders == [train, test]
    assert Own(train=train, test=test, extra=extra).loaders == [train, test, extra]


def test_a_set_counts_its_training_samples_and_moves_all_its_loaders():
    data = Own(train=loader(5), test=loader(2))
    assert data.num_samples == 5
    assert data.labels.tolist() == [0, 1, 2, 0, 1]
    data.to(torch.device("meta"))
    assert {one.device.type for one in data.loaders} == {"meta"}
