"""Stored pixels are those of the files, whole or absent, and never of files that changed."""

import os
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kd_core.data import decoded
from kd_core.data.decoded import DecodedImages
from kd_core.data.folder_loader import FolderLoader
from kd_core.data.image_files import DECODER, read_image, read_pixels, size_of_pixels
from kd_core.errors import UserError
from kd_core.testing.damage import cut, flip_bit, full_disk, refusal, restored
from PIL import Image

MODES = ("RGB", "L", "CMYK", "RGB", "1", "RGB", "P")


@pytest.fixture
def files(tmp_path):
    """Return images of several modes and sizes."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    paths = []
    for number, mode in enumerate(MODES):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (9 + number, 14 - number, 3), dtype=np.uint8)
        paths.append(tmp_path / "set" / "a" / f"{number}.{'png' if mode == 'P' else 'jpg'}")
        exif = Image.Exif()
        exif[0x0112] = 6 if number in (3, 6) else 1  # lying: stored pixels are upright
        Image.fromarray(pixels).convert(mode).save(paths[-1], exif=exif)
    return np.array([os.fsencode(path) for path in paths])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "stores"


def decode(files):
    return [np.array(read_image(file)) for file in map(os.fsdecode, files)]


def read(store, files):
    return [store(file) for file in map(os.fsdecode, files)]


def same(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def crop(image):
    top, left = (int(torch.randint(side - 7, ())) for side in (image.height, image.width))
    return image.crop((left, top, left + 8, top + 8))


def test_pixels_are_those_of_the_files_and_decoded_once(files, folder):
    expected = decode(files)
    store = DecodedImages(folder, files)
    assert same(read(store, files), expected)
    for file in files:
        os.truncate(file, 0)
    assert same(read(store, files), expected)


def test_another_run_uses_what_one_has_stored(files, folder):
    expected = decode(files)
    stores = DecodedImages(folder, files), DecodedImages(folder, files[::-1])
    read(stores[0], files[:3])
    for file in files[:3]:
        os.truncate(file, 0)
    assert same(read(stores[1], files), expected)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_without_a_store(files, folder, workers):
    def batches(pixels):
        options = {"image_size": 8, "workers": workers, "batch_size": 3, "shuffle": True}
        loader = FolderLoader(files, torch.arange(len(files)), crop, pixels=pixels, **options)
        return [batch["image"] for epoch in range(3) for batch in loader.epoch(epoch)]

    store = DecodedImages(folder, files)
    filling, stored, plain = batches(store), batches(store), batches(None)
    assert all(map(torch.equal, filling, plain))
    assert all(map(torch.equal, stored, plain))
    for file in files:
        os.truncate(file, 0)
    assert all(map(torch.equal, batches(store), plain))  # the workers have stored them all


def test_what_is_half_written_is_not_taken(files, folder):
    store = DecodedImages(folder, files)
    told = r"cannot be written .*too large.*without `decoded`"
    with full_disk(store.bytes - 20), pytest.raises(UserError, match=told):
        read(store, files)
    assert same(read(store, files), decode(files))


def test_another_way_of_decoding_has_another_store(files, folder, monkeypatch):
    paths = {DecodedImages(folder, files).path}
    monkeypatch.setattr(decoded, "DECODER", "Pillow of another version")
    paths.add(DecodedImages(folder, files).path)
    assert len(paths) == 2
    assert "upright" in DECODER


def test_files_that_changed_have_another_store_and_a_word(files, folder, capsys):
    paths = [DecodedImages(folder, files).path]
    assert "delete what no run needs" not in capsys.readouterr().err
    os.utime(files[2], ns=(0, 0))
    paths.append(DecodedImages(folder, files).path)
    assert "also has 1 of other files, or of these before they changed" in capsys.readouterr().err
    paths.append(DecodedImages(folder, files, side=9).path)
    paths.append(DecodedImages(folder, files[:-1]).path)
    assert len(set(paths)) == 4
    capsys.readouterr()
    assert DecodedImages(folder, files).path == paths[1]
    assert "also has" not in capsys.readouterr().err


def test_a_set_that_moved_keeps_its_store(files, folder, tmp_path):
    path = DecodedImages(folder, files).path
    shutil.copytree(tmp_path / "set", tmp_path / "moved")  # with the times of the files
    moved = np.array([file.replace(b"/set/", b"/moved/") for file in files.tolist()])
    assert DecodedImages(folder, moved).path == path


def test_a_store_that_does_not_fit_is_refused(files, folder, monkeypatch, capsys):
    def free(count):
        monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: SimpleNamespace(free=count))

    needed = sum(4 + -(-3 * (9 + n) * (14 - n) // 4) * 4 for n in range(len(files)))
    free(needed - 1)
    with pytest.raises(UserError, match=r"do not fit, 0\.0 MB are free.*`decoded_side`"):
        DecodedImages(folder, files)
    assert "decoded images: 7 in" in capsys.readouterr().err
    assert not folder.exists()
    free(needed)
    store = DecodedImages(folder, files)
    read(store, files)
    with (store.path / "pixels").open("rb+") as file:
        os.fsync(file.fileno())
    free(0)  # what is stored needs no more room
    assert DecodedImages(folder, files).filled() >= needed


@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (10, 10), (7, 40), (301, 5), (400, 211)])
def test_larger_images_are_reduced_to_a_shorter_side(shape, tmp_path):
    file = str(tmp_path / "image.png")
    Image.new("RGB", shape[::-1], (10, 20, 30)).save(file)
    pixels = read_pixels(file, 10)
    assert size_of_pixels(file, 10) == pixels.shape[:2]
    assert min(pixels.shape[:2]) == min(10, *shape)
    assert max(pixels.shape[:2]) == max(shape) * min(10, *shape) // min(shape)
    assert (pixels == (10, 20, 30)).all()


def test_reduced_pixels_are_stored(files, folder):
    store = DecodedImages(folder, files, side=9)
    expected = [read_pixels(os.fsdecode(file), 9) for file in files]
    assert same(read(store, files), expected)
    assert same(read(store, files), expected)
    assert store.bytes == sum(4 + -(-pixels.size // 4) * 4 for pixels in expected)


def test_damaged_images_are_named(files, folder):
    os.truncate(files[3], os.stat(files[3]).st_size - 100)
    loader = FolderLoader(
        files,
        torch.zeros(len(files), dtype=torch.int64),
        crop,
        image_size=8,
        workers=1,
        batch_size=7,
        pixels=DecodedImages(folder, files),
    )
    with pytest.raises(UserError, match=r"/3\.jpg: cannot be decoded as an image \("):
        next(loader.epoch(0))
    os.truncate(files[3], 3)
    with pytest.raises(UserError, match=r"/3\.jpg: cannot be decoded as an image \("):
        DecodedImages(folder, files)


def test_an_image_replaced_by_a_larger_one_overwrites_no_other(files, folder):
    store = DecodedImages(folder, files)
    Image.new("RGB", (50, 60)).save(os.fsdecode(files[0]))
    with pytest.raises(UserError, match=r"0\.jpg: its header says 9 x 14 pixels.*60 x 50"):
        store(os.fsdecode(files[0]))


def test_missing_files_and_folders_that_cannot_be_made_are_named(files, folder):
    folder.touch()
    with pytest.raises(UserError, match=r"stores.*name a folder that can be written"):
        DecodedImages(folder, files)
    os.remove(files[1])
    with pytest.raises(UserError, match=r"1\.jpg: cannot be read"):
        DecodedImages(folder, files)


def test_no_flipped_bit_gives_other_pixels(files, folder):
    store = DecodedImages(folder, files)
    expected, rng = read(store, files), random.Random(3)
    places = [rng.randrange(store.bytes) for _ in range(40)]
    places += [int(start) + byte for start in store._starts for byte in range(5)]
    path, found, refused = store.path / "pixels", [], 0
    for place in places:
        with restored(path):
            flip_bit(path, rng, at=place)
            found.clear()
            line = refusal(lambda: found.extend(read(DecodedImages(folder, files), files)), path)
            refused += line is not None
            assert line or same(found, expected)
            assert not line or "; move" in line
    assert refused > 0.9 * len(places)


def test_a_bit_that_flips_before_anything_is_stored_is_not_taken_for_pixels(files, folder):
    store = DecodedImages(folder, files)
    flip_bit(store.path / "pixels", at=0)
    with pytest.raises(UserError, match=r"damaged \(the checksum of the pixels of .*0\.jpg does"):
        read(store, files)


@pytest.mark.parametrize("name", ["pixels", "sizes.pth"])
def test_a_store_that_was_cut_is_refused(files, folder, name):
    path = DecodedImages(folder, files).path / name
    for length in (0, 1, 20, -1):
        with restored(path):
            cut(path, to=length)
            assert "damaged" in (refusal(lambda: DecodedImages(folder, files), path) or "")


def test_sizes_with_a_flipped_bit_are_never_others(files, folder):
    sizes, rng = DecodedImages(folder, files).sizes, random.Random(4)
    path = DecodedImages(folder, files).path / "sizes.pth"
    for _ in range(60):
        with restored(path):
            flip_bit(path, rng)
            assert refusal(lambda: DecodedImages(folder, files), path)
    assert np.array_equal(DecodedImages(folder, files).sizes, sizes)


def test_a_checksum_that_is_just_being_written_is_waited_for(files, folder, monkeypatch):
    store = DecodedImages(folder, files)
    expected = read(store, files)[0]
    path = store.path / "pixels"
    whole = path.read_bytes()
    flip_bit(path, at=1)
    monkeypatch.setattr(decoded.time, "sleep", lambda _: path.write_bytes(whole))
    assert np.array_equal(DecodedImages(folder, files)(os.fsdecode(files[0])), expected)
