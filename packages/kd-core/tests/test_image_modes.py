"""Images are upright, and those of many bits or of other modes are scaled and never clipped."""

import struct
import zlib

import numpy as np
import pytest
from kd_core.data import image_files
from kd_core.data.image_files import as_rgb, read_image, read_pixels, size_of_pixels
from kd_core.errors import UserError
from PIL import Image, ImageFile, ImageOps

ORIENTATION = 0x0112
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
XMP = b'<x:xmpmeta><rdf tiff:Orientation="%d"/></x:xmpmeta>'


def turned(orientation):
    """Return what a camera means by pixels with an orientation, by NumPy alone."""
    if orientation > 4:
        upright = PIXELS.swapaxes(0, 1)
        return {5: upright, 6: upright[:, ::-1], 7: upright[::-1, ::-1], 8: upright[::-1]}[
            orientation
        ]
    return {1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1]}[orientation]


def save(path, orientation, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif, **options)
    return str(path)


def with_late_exif(path, orientation):
    """Write a PNG file whose EXIF comes after the pixels, as some programs do."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(PIXELS).save(path)
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + body))
    data = path.read_bytes()
    path.write_bytes(data[:-12] + chunk + data[-12:])
    return str(path)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "webp", "tif", "mpo", "jpg"])
    def test_pixels_and_size_are_upright(self, tmp_path, suffix, orientation):
        options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
        options["mpo"] = {**options["jpg"], "save_all": True, "append_images": []}
        file = save(tmp_path / f"a.{suffix}", orientation, **options.get(suffix, {}))
        expected = turned(orientation)
        found = read_pixels(file)
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 2
        assert size_of_pixels(file) == expected.shape[:2]
        assert size_of_pixels(file, 6) == read_pixels(file, 6).shape[:2]

    @pytest.mark.parametrize("write", ["late", "png", "jpg", "tif", "webp"])
    def test_metadata_in_other_places_count_as_for_pillow(self, tmp_path, write):
        file = tmp_path / f"a.{write if write != 'late' else 'png'}"
        if write == "late":
            with_late_exif(file, 6)
        elif write == "png":
            info = __import__("PIL.PngImagePlugin", fromlist=["PngInfo"]).PngInfo()
            info.add_itxt("XML:com.adobe.xmp", (XMP % 6).decode())
            Image.fromarray(PIXELS).save(file, pnginfo=info)
        elif write == "tif":
            tags = {700: XMP % 6}
            Image.fromarray(PIXELS).save(file, tiffinfo=tags)
        else:
            Image.fromarray(PIXELS).save(file, xmp=XMP % 6)
        with Image.open(file) as image:
            image.load()
            expected = ImageOps.exif_transpose(image).convert("RGB")
        assert read_image(str(file)).size == expected.size == (12, 20)
        assert np.array_equal(read_pixels(str(file)), np.array(expected))
        assert size_of_pixels(str(file)) == (20, 12)

    def test_sizes_are_read_without_decoding(self, tmp_path, monkeypatch):
        files = [save(tmp_path / f"a.{suffix}", 6) for suffix in ("jpg", "png", "tif")]
        Image.fromarray(PIXELS).save(tmp_path / "plain.png")
        decoded = []
        load = ImageFile.ImageFile.load
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda i: decoded.append(i) or load(i))
        assert [size_of_pixels(file) for file in files] == [(20, 12)] * 3
        assert size_of_pixels(str(tmp_path / "plain.png")) == (12, 20)
        assert decoded == []

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as `quiet_pillow` does
    @pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
    def test_damaged_metadata_leave_an_image_as_it_is(self, tmp_path, exif):
        file = tmp_path / "a.jpg"
        Image.fromarray(PIXELS).save(file, exif=exif)
        assert read_image(str(file)).size == (20, 12)
        assert size_of_pixels(str(file)) == (12, 20)

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_orientations_that_do_not_exist_are_upright(self, tmp_path, value):
        assert size_of_pixels(save(tmp_path / "a.jpg", value)) == (12, 20)


class TestDepth:
    VALUES = np.array([[0, 257, 255 * 128], [40000, 65535, 300]], dtype=np.uint16)
    SCALED = (0, 1, 127, 156, 255, 1)

    @pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
    def test_sixteen_bits_are_scaled_from_their_whole_range(self, tmp_path, suffix):
        file = tmp_path / f"deep.{suffix}"
        image = Image.fromarray(self.VALUES)
        image.save(file, **({"irreversible": False} if suffix == "jp2" else {}))
        found = read_pixels(str(file))
        assert found.shape == (2, 3, 3)
        assert np.abs(found[..., 0].ravel().astype(int) - self.SCALED).max() <= 1
        assert (found == found[..., :1]).all()
        assert size_of_pixels(str(file)) == (2, 3)

    def test_eight_bits_stored_as_sixteen_come_back(self, tmp_path):
        grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
        Image.fromarray(grey * 257).save(tmp_path / "a.png")
        assert (read_pixels(str(tmp_path / "a.png"))[..., 0] == grey).all()

    def test_deep_images_are_turned_too(self, tmp_path):
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        Image.fromarray(self.VALUES).save(tmp_path / "a.png", exif=exif)
        assert read_image(str(tmp_path / "a.png")).size == (2, 3)
        assert read_image(str(tmp_path / "a.png")).getpixel((1, 0)) == (0, 0, 0)

    def test_floats_are_those_of_0_to_1(self, tmp_path):
        file = str(tmp_path / "a.tif")
        Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)).save(file)
        assert read_pixels(file)[0, :, 0].tolist() == [0, 128, 255]

    @pytest.mark.parametrize("wrong", [-0.1, 1.5, 200, float("nan"), float("inf")])
    def test_other_floats_are_refused_with_their_range(self, tmp_path, wrong):
        file = str(tmp_path / "a.tif")
        Image.fromarray(np.array([[0, wrong]], dtype=np.float32)).save(file)
        with pytest.raises(UserError, match=r"a\.tif: floats from .* wanted 0 to 1"):
            read_image(file)

    def test_whole_numbers_of_32_bits_are_refused(self, tmp_path):
        file = str(tmp_path / "a.tif")
        Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(file)
        with pytest.raises(UserError, match=r"a\.tif: whole numbers of 32 bits.*mode I"):
            read_image(file)


class TestModes:
    @pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
    def test_transparency_is_dropped(self, mode):
        image = Image.new("RGBA", (2, 2), (90, 90, 90, 0)).convert(mode)
        assert as_rgb(image, "here").getpixel((0, 0)) == (90, 90, 90)

    def test_one_bit_is_black_and_white(self, tmp_path):
        file = str(tmp_path / "a.tif")
        Image.fromarray(np.array([[True, False]])).save(file)
        assert read_pixels(file)[0, :, 0].tolist() == [255, 0]

    @pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
    def test_of_several_frames_the_first_counts(self, tmp_path, suffix):
        frames = [Image.new("RGB", (4, 4), (level,) * 3) for level in (200, 10)]
        options = {"lossless": True} if suffix == "webp" else {}
        file = str(tmp_path / f"a.{suffix}")
        frames[0].save(file, save_all=True, append_images=frames[1:], **options)
        assert read_image(file).getpixel((0, 0)) == (200, 200, 200)
        assert size_of_pixels(file) == (4, 4)

    @pytest.mark.parametrize("read", [read_image, size_of_pixels])
    def test_postscript_is_not_run_whatever_its_name(self, tmp_path, read):
        file = tmp_path / "a.jpg"
        file.write_text(
            "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
        )
        with pytest.raises(UserError, match=r"a\.jpg: cannot be decoded .*EPS is not read"):
            read(str(file))

    @pytest.mark.filterwarnings("error")
    def test_large_images_cause_no_warning(self, tmp_path, monkeypatch):
        Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with image_files.warnings.catch_warnings():
            image_files.quiet_pillow()
            assert size_of_pixels(str(tmp_path / "a.png")) == (40, 40)
