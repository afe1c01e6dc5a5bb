"""Image files as upright RGB pixels of 8 bits; errors that name the file."""

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL import __version__ as _pillow
from torch import Tensor

from kd_core.data.deep_pixels import eight_bits
from kd_core.data.orientation import has_late_metadata, orientation, upright_size
from kd_core.errors import UserError

Transform = Callable[[Image.Image], Image.Image | Tensor]
Pixels = Callable[[str], np.ndarray]  # from a file to its pixels, uint8 [H, W, 3]
USUAL_ENDINGS = ".jpg .jpeg .jfif .png .webp .tif .bmp"
"""For messages; `image_endings` has all."""
DECODER = f"Pillow {_pillow}, upright, 8 bits"  # another one gives other pixels

# EPS would be drawn by a program; of the others, Pillow reads the header alone, or nothing.
_NOT_READ = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "PDF", "PALM"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def quiet_pillow() -> None:
    """Let Pillow not warn of images of 90 to 180 million pixels (beyond, it refuses them) or EXIF.

    Its warnings have two lines, for each image.
    """
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", message="Corrupt EXIF data")


quiet_pillow()


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of the names of images that can be read here, in lower case."""
    Image.init()
    readable = {*Image.OPEN, "MPO"} - _NOT_READ  # MPO is opened as JPEG
    return frozenset(e for e, kind in Image.registered_extensions().items() if kind in readable)


def read_image(file: str) -> Image.Image:
    """Decode an image file to RGB, as `as_rgb` describes; of several frames, the first.

    Raises:
        UserError: If the file is damaged or missing, or see `as_rgb`.
    """
    try:
        with _open(file) as stream:
            return decode_image(stream, file)
    except OSError as error:
        raise _damaged(file, error) from error


def decode_image(stream: BinaryIO, where: str) -> Image.Image:
    """Decode an open image file as `read_image` does.

    Args:
        stream: The file, or its bytes.
        where: What it is called in messages.

    Raises:
        UserError: See `read_image`.
    """
    try:
        with Image.open(stream) as image:
            _require_readable(image)
            image.load()
            return as_rgb(image, where)
    except (MemoryError, UserError):
        raise
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error
        raise _damaged(where, error) from error


def as_rgb(image: Image.Image, where: str) -> Image.Image:
    """Return a decoded image of any mode as upright RGB of 8 bits a channel.

    Turned as its EXIF orientation says. Grey values are repeated, CMYK and palettes converted,
    transparency is dropped: a pixel keeps its colour, as in torchvision's loader. 16 bits are
    scaled from their whole range, see `deep_pixels`.

    Args:
        image: Its pixels are loaded.
        where: Its file or name, for messages.

    Raises:
        UserError: If its numbers have no usual range.
    """
    turn = _TURNS.get(orientation(image))
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(eight_bits(np.asarray(image), image.mode, _range(image), where))
    # A palette with transparency is converted to RGBA first, else Pillow warns.
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    image = image if image.mode == "RGB" else image.convert("RGB")  # which would copy
    return image if turn is None else image.transpose(turn)


def as_pixels(image: object) -> np.ndarray:
    """Return the pixels of a PIL image by `as_rgb`, uint8 [H, W, 3].

    Raises:
        UserError: If it is not a PIL image, or see `as_rgb`.
    """
    if not isinstance(image, Image.Image):
        raise UserError(
            f"its image is a {type(image).__name__}; wanted a PIL image, an array or a tensor"
        )
    image.load()
    return np.array(as_rgb(image, "its image"))


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return pixels, uint8 [H, W, 3], as an image."""
    return Image.fromarray(pixels)


def as_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a tensor, uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def read_pixels(file: str, side: int | None = None) -> np.ndarray:
    """Decode an image file to uint8 [H, W, 3], reduced to a shorter side if that is longer.

    Raises:
        UserError: See `read_image`.
    """
    image = read_image(file)
    width, height = reduced = _reduced(image.size, side)
    image = image if image.size == reduced else image.resize(reduced, Image.Resampling.BILINEAR)
    return np.array(image).reshape(height, width, 3)


def size_of_pixels(file: str, side: int | None = None) -> tuple[int, int]:
    """Return height and width of the result of `read_pixels`, from the header alone.

    Raises:
        UserError: If the file has no header of an image.
    """
    try:
        with _open(file) as stream:
            late = has_late_metadata(stream)
            with Image.open(stream) as image:
                _require_readable(image)
                width, height = upright_size(image, late)
    except (MemoryError, UserError):
        raise
    except Exception as error:
        raise _damaged(file, error) from error
    width, height = _reduced((width, height), side)
    return height, width


def require_image(file: str) -> None:
    """Reject anything but a regular file, without opening it.

    Raises:
        UserError: If it is missing, a link to nothing, a folder, FIFO, socket or device.
    """
    try:
        kind = _not_a_file(os.stat(file).st_mode)
    except (OSError, ValueError) as error:
        if os.path.islink(file):
            raise UserError(f"{file}: is a link to nothing; replace it, or leave it out") from error
        raise _damaged(file, error) from error
    if kind:
        raise UserError(f"{file}: is {kind}, not an image file; leave it out")


def _range(image: Image.Image) -> int | None:
    """Return the largest whole number that a pixel of more than 8 bits can have, if it is known."""
    if image.mode.startswith("I;16"):
        bits: Any = getattr(image, "tag_v2", {}).get(258, (16,))  # TIFF's BitsPerSample
        return int(2 ** bits[0] - 1)
    # Pillow gives 16 bits of these formats as 32.
    return 65535 if image.mode == "I" and image.format in ("PNG", "PPM") else None


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    """Open an image; reject anything but a regular file without waiting for it, such as a FIFO."""
    require_image(file)
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        found = os.fstat(stream.fileno())
        if kind := _not_a_file(found.st_mode):  # replaced just now
            raise UserError(f"{file}: is {kind}, not an image file; leave it out")
        if not found.st_size:
            raise _damaged(file, ValueError("it is empty"))
        yield stream


def _require_readable(image: Image.Image) -> None:
    if image.format in _NOT_READ:
        raise ValueError(f"{image.format} is not read")


def _not_a_file(mode: int) -> str:
    """Return what a path is, from its `st_mode`; "" if it is a regular file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "")


def _reduced(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Return a size in pixels with its shorter side lowered to `side`."""
    shorter = min(size)
    if side is None or shorter <= side:
        return size
    width, height = (max(1, length * side // shorter) for length in size)
    return width, height


def _damaged(file: str, error: Exception) -> UserError:
    unknown = isinstance(error, UnidentifiedImageError)  # its text names a Python object
    why = "not a format that Pillow knows" if unknown else error
    return UserError(f"{file}: cannot be decoded as an image ({why}); replace it, or leave it out")
