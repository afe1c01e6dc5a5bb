import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from kd_cls import data
from kd_cls.data.augment import CropFlip, Resize
from kd_core.errors import UserError


@pytest.fixture
def any_checksum(monkeypatch):
    """Let torchvision take files that are not the real ones."""
    for module in ("cifar", "stl10"):
        monkeypatch.setattr(
            getattr(torchvision.datasets, module),
            "check_integrity",
            lambda path, md5=None: Path(path).is_file(),
        )


def write_cifar100(root, labels=(0, 2, 1, 2)) -> np.ndarray:
    folder = root / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "fine_labels": list(labels)}))
    names = {"fine_label_names": ["apple", "bear", "cup"]}
    (folder / "meta").write_bytes(pickle.dumps(names))
    return pixels


def write_cifar10(root) -> np.ndarray:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [1, 0]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "bird"]}))
    return pixels


def write_stl10(root, labels=(1, 10, 3)) -> np.ndarray:
    folder = root / "stl10_binary"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 3, 96, 96), dtype=np.uint8)
    for name in ("train", "test"):
        (folder / f"{name}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{name}_y.bin").write_bytes(bytes(labels))
    (folder / "unlabeled_X.bin").write_bytes(b"0")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    return pixels


def test_cifar100_is_read_in_torchvision_s_layout(tmp_path, any_checksum):
    pixels = write_cifar100(tmp_path)
    splits = data.cifar100(str(tmp_path), batch_size=2)
    assert splits.classes == ("apple", "bear", "cup")
    assert splits.labels.tolist() == [0, 2, 1, 2]
    assert np.array_equal(splits.train.images.numpy().reshape(4, -1), pixels)
    assert splits.mean == (0.5071, 0.4867, 0.4408)
    batch = next(splits.train.epoch(0))
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["crop_id"].max() < 162


def test_cifar10_joins_its_five_batches(tmp_path, any_checksum):
    pixels = write_cifar10(tmp_path)
    splits = data.cifar10(str(tmp_path), image_size=48)
    assert splits.num_samples == 10
    assert np.array_equal(splits.train.images[8:].numpy().reshape(2, -1), pixels)
    assert [type(step) for step in splits.train.augment] == [Resize, CropFlip]
    assert next(splits.test.epoch(0))["image"].shape == (2, 3, 48, 48)


def test_cifar_label_out_of_range_names_the_file_and_sample(tmp_path, any_checksum):
    write_cifar100(tmp_path, labels=(0, 3))
    with pytest.raises(UserError, match=r"cifar-100-python, train part: label 3 of sample 1"):
        data.cifar100(str(tmp_path))


def test_damaged_cifar_names_the_files(tmp_path):
    write_cifar100(tmp_path)
    with pytest.raises(UserError, match=r"damaged: train, test; unpack cifar-100-python.tar.gz"):
        data.cifar100(str(tmp_path))


def test_missing_cifar_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"no folder 'cifar-100-python' in .*download=True"):
        data.cifar100(str(tmp_path))


def test_a_misspelt_root_names_its_neighbour(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"no folder 'imges' in .*; did you mean 'images'"):
        data.cifar10(str(tmp_path / "imges"))


def test_stl10_is_read_upright_with_labels_from_zero(tmp_path, any_checksum):
    pixels = write_stl10(tmp_path)
    splits = data.stl10(str(tmp_path))
    assert np.array_equal(splits.train.images.numpy(), pixels)
    assert splits.labels.tolist() == [0, 9, 2]
    assert splits.classes == tuple("abcdefghij")
    assert splits.image_size == 96


def test_stl10_label_zero_names_the_file(tmp_path, any_checksum):
    write_stl10(tmp_path, labels=(1, 0))
    with pytest.raises(UserError, match=r"train_y.bin: label 255 of sample 1 is not one of the 10"):
        data.stl10(str(tmp_path))


def test_digits_are_split_evenly_and_alike_in_every_run():
    splits, again = data.digits(train_per_class=20, data_seed=1), data.digits(train_per_class=20)
    assert torch.bincount(splits.labels).tolist() == [20] * 10
    assert len(splits.test.labels) == 1797 - 200
    assert torch.equal(splits.test.images, again.test.images)
    assert not torch.equal(
        splits.test.images, data.digits(train_per_class=20, split_seed=1).test.images
    )
    everything = torch.cat([splits.train.images, splits.test.images]).float() / 255
    torch.testing.assert_close(everything.mean().item(), splits.mean[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(everything.std().item(), splits.std[0], atol=1e-3, rtol=0)


def test_digits_keep_a_test_set():
    with pytest.raises(UserError, match=r"train_per_class must be in \[1, 173\], got 174"):
        data.digits(train_per_class=174)


def test_synthetic_images_tell_their_class():
    splits = data.synthetic(num_classes=6, image_size=9)
    train, test = (s.images.float().flatten(1) for s in (splits.train, splits.test))
    nearest = splits.labels[torch.cdist(test, train).argmin(1)]
    assert (nearest == splits.test.labels).all()
