"""Image files of any kind become RGB; those that cannot be read are named."""

import numpy as np
import pytest
import torch
from kd_core.data.image_files import ImageFiles, read_image
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


def test_an_image_keeps_its_pixels_and_an_index_beyond_the_last_begins_anew(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = np.array([str(tmp_path / "a.png").encode()])
    images = ImageFiles(files, lambda image: image, (2, 3), 0).__getitems__([(0, 0), (0, 1)])
    assert torch.equal(images[0], torch.from_numpy(pixels).permute(2, 0, 1))
    assert torch.equal(images[0], images[1])
