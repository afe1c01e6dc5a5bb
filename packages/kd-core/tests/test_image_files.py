"""Image files of any kind become RGB; those that cannot be read are named."""

import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_core.data.image_files import read_image, require_image, size_of_pixels
from kd_core.data.image_listing import LeftOut, list_images
from kd_core.data.samples.image_samples import ImageFiles
from kd_core.errors import UserError
from PIL import Image


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_mode_become_colour(mode, tmp_path):
    file = tmp_path / "image.tif"
    Image.new(mode, (4, 8)).save(file)
    image = read_image(file)
    assert (image.mode, image.size) == ("RGB", (4, 8))


@pytest.mark.parametrize("suffix", ["bmp", "jpg", "png", "ppm", "tif", "webp", "mpo", "zip.tif"])
def test_colour_images_are_whole_after_their_file_is_closed(suffix, tmp_path):
    file = tmp_path / f"image.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    other = Image.new("RGB", (30, 20))
    options = {
        "mpo": {"save_all": True, "append_images": [other]},
        "webp": {"save_all": True, "append_images": [other], "lossless": True},
        "zip.tif": {"compression": "tiff_adobe_deflate"},
    }
    Image.fromarray(pixels).save(file, **options.get(suffix, {}))
    with Image.open(file) as image:
        expected = np.array(image.convert("RGB"))
    image = read_image(str(file))
    file.unlink()
    assert np.array_equal(np.array(image.crop((3, 4, 25, 19))), expected[4:19, 3:25])
    assert np.array_equal(np.array(image.resize((30, 20))), expected)


def test_a_damaged_image_is_refused(tmp_path):
    file = tmp_path / "1.jpg"
    file.touch()
    with pytest.raises(UserError, match=r"1\.jpg: cannot be decoded as an image"):
        read_image(file)


def test_an_image_keeps_its_pixels_and_an_index_beyond_the_last_restarts(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = np.array([str(tmp_path / "a.png").encode()])
    images = ImageFiles(files, lambda image: image, (2, 3), 0).__getitems__([(0, 0), (0, 1)])
    assert torch.equal(images[0], torch.from_numpy(pixels).permute(2, 0, 1))
    assert torch.equal(images[0], images[1])


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("fifo", "is a FIFO"),
        ("socket", "is a socket"),
        ("folder", "is a folder"),
        ("device", "is a device"),
        ("dangling", "is a link to nothing"),
        ("loop", "is a link to nothing"),
        ("missing", "No such file"),
        ("empty", "it is empty"),
        ("text", "not a format that Pillow knows"),
        ("cut", "truncated"),
        ("bomb", "decompression bomb"),
    ],
)
@pytest.mark.parametrize("read", [read_image, size_of_pixels, require_image])
def test_what_is_no_image_is_named_and_never_waited_for(tmp_path, monkeypatch, kind, wanted, read):
    file = tmp_path / "a.png"
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), (1, 2, 3)).save(whole, "png")
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)
        socket.socket(socket.AF_UNIX).bind("a.png")
    elif kind == "folder":
        file.mkdir()
    elif kind in ("device", "dangling", "loop"):
        file.symlink_to({"device": "/dev/zero", "dangling": "gone", "loop": "a.png"}[kind])
    elif kind in ("empty", "text", "cut", "bomb"):
        texts = {"empty": b"", "text": b"hello", "cut": whole.getvalue()[:-60]}
        file.write_bytes(texts.get(kind, whole.getvalue()))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000 if kind == "bomb" else 10**8)
        if read is require_image or (read is size_of_pixels and kind == "cut"):
            read(str(file))  # it is a file; only its pixels are wrong
            return
    with pytest.raises(UserError, match=wanted) as caught:
        read(str(file))
    assert str(file) in str(caught.value)


class TestListing:
    def test_files_are_in_the_order_of_names_and_links_are_followed(self, tmp_path):
        for name in ("b/2.png", "b/10.JPG", "a.png", "b/c/1.png", "b/note.txt", "b c/1.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).touch()
        (tmp_path / "z").symlink_to("b", target_is_directory=True)
        found = [os.path.relpath(path, tmp_path) for path in list_images(tmp_path)]
        assert found == [
            "a.png",
            *("b/10.JPG", "b/2.png", "b c/1.png", "b/c/1.png"),
            *("z/10.JPG", "z/2.png", "z/c/1.png"),
        ]

    @pytest.mark.parametrize("name", ["a.JFIF", "a.webp", "a.Tif", "a.avif", "a.jp2", "a.tga"])
    def test_all_endings_that_pillow_reads_are_those_of_images(self, tmp_path, name):
        if Path(name).suffix.lower() not in Image.registered_extensions():
            pytest.skip("this release of Pillow does not read it")
        (tmp_path / name).touch()
        assert list_images(tmp_path) == [str(tmp_path / name)]

    @pytest.mark.parametrize("name", ["a.eps", "a.pdf", "a.h5", "a.mpg", "a", "png", "a.png.txt"])
    def test_other_endings_are_not(self, tmp_path, name):
        (tmp_path / name).touch()
        assert list_images(tmp_path) == []

    def test_what_is_hidden_is_left_out_and_counted(self, tmp_path):
        hidden = ["._a.png", ".x/b.png", "@eaDir/c.png", "__MACOSX/d.png", "lost+found/e.png"]
        for name in ["a.png", "b/Thumbs.db", *hidden]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / ".x" / "back").symlink_to(tmp_path, target_is_directory=True)
        left_out = LeftOut()
        assert list_images(tmp_path, left_out) == [str(tmp_path / "a.png")]
        assert left_out.found == {"hidden": (5, "._a.png"), "not images": (1, "Thumbs.db")}

    def test_a_folder_below_a_hidden_one_is_read(self, tmp_path):
        (tmp_path / ".cache").mkdir()
        (tmp_path / ".cache" / "a.png").touch()
        assert len(list_images(tmp_path / ".cache")) == 1

    def test_what_is_named_like_an_image_and_is_none_is_refused(self, tmp_path):
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(UserError, match=r"a\.png: is a FIFO"):
            list_images(tmp_path)

    def test_a_link_back_is_refused(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "b").symlink_to(tmp_path, target_is_directory=True)
        with pytest.raises(UserError, match="this link leads back"):
            list_images(tmp_path)

    def test_names_that_are_no_text_are_found(self, tmp_path):
        name = os.fsencode(tmp_path) + b"/\xff \n.png"
        open(name, "wb").close()
        assert [os.fsencode(path) for path in list_images(tmp_path)] == [name]


def test_a_transform_that_fails_names_the_file(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def fail(image):
        raise ZeroDivisionError("by zero")

    files = ImageFiles(np.array([os.fsencode(tmp_path / "a.png")]), fail, 8, 0)
    assert files.__getitems__([(0, 0)]) == (
        f"{tmp_path}/a.png: the transform failed on it (ZeroDivisionError: by zero)"
    )
