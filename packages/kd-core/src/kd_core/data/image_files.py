"""Image files as tensors: decoding, a random seed per sample, errors that name the file."""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL import __version__ as _pillow
from torch import Tensor
from torch.utils.data import Dataset

from kd_core.data.sampling import borrowed_generators, seed_generators
from kd_core.errors import UserError
from kd_core.networks.image_task import height_and_width
from kd_core.runtime.failures import first_line
from kd_core.runtime.seed import mix

Transform = Callable[[Image.Image], Image.Image | Tensor]
Pixels = Callable[[str], np.ndarray]  # from a file to its pixels, uint8 [H, W, 3]
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
DECODER = f"Pillow {_pillow}"  # another version may round pixels differently


class ImageFiles(Dataset[Tensor]):
    """Image files as uint8 tensors; `__getitems__` takes (epoch, index) pairs and runs in workers.

    An index beyond the last stands for a repeated sample; see `Sampler`.

    Args:
        files: Paths of the images, bytes [N].
        transform: See `FolderLoader`.
        image_size: Height and width of the tensors in pixels, or the side of squares.
        data_seed: Seed of the transform's draws.
        pixels: Returns the pixels of a file; None decodes it.
    """

    def __init__(
        self,
        files: np.ndarray,
        transform: Transform,
        image_size: int | tuple[int, int],
        data_seed: int,
        pixels: Pixels | None = None,
    ) -> None:
        self.files, self.transform, self.pixels = files, transform, pixels
        self.size, self.data_seed = height_and_width(image_size), data_seed

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> Tensor | str:
        """Return the images, uint8 [n, 3, H, W], or a text that says what is wrong with one.

        A text, because an exception from a worker would be wrapped in its traceback.
        """
        images = torch.empty(len(pairs), 3, *self.size, dtype=torch.uint8)
        with borrowed_generators():
            for image, (epoch, index) in zip(images, pairs, strict=True):
                seed_generators(mix(self.data_seed, epoch, index))
                try:
                    image.copy_(self._load(os.fsdecode(self.files[index % len(self.files)])))
                except UserError as error:
                    return str(error)
        return images

    def _load(self, file: str) -> Tensor:
        image: Any = read_image(file) if self.pixels is None else Image.fromarray(self.pixels(file))
        try:
            image = self.transform(image)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{file}: the transform failed on it ({what})") from error
        if isinstance(image, Image.Image):
            image = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        wanted = (3, *self.size)
        if tuple(image.shape) != wanted or image.dtype != torch.uint8:
            raise UserError(
                f"{file}: the transform gave {image.dtype} {tuple(image.shape)} where uint8 "
                f"{wanted} is wanted; end it with a crop or resize to {self.size}"
            )
        return image


def read_image(file: str) -> Image.Image:
    """Decode an image file to RGB; transparency is dropped.

    Raises:
        UserError: If the file is damaged, missing, or has more than 8 bits a channel.
    """
    try:
        with _open(file) as stream, Image.open(stream) as image:
            if not image.mode.startswith(("I", "F")):
                # A palette with transparency is converted to RGBA first, else Pillow warns.
                via = image.convert("RGBA") if "transparency" in image.info else image
                via.load()
                return via if via.mode == "RGB" else via.convert("RGB")  # which would copy
            mode = image.mode
    except (MemoryError, UserError):
        raise
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error
        raise _damaged(file, error) from error
    raise UserError(
        f"{file}: pixels of more than 8 bits (mode {mode}); convert it to 8 bits a channel"
    )


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
        with _open(file) as stream, Image.open(stream) as image:
            width, height = _reduced(image.size, side)
    except UserError:
        raise
    except Exception as error:
        raise _damaged(file, error) from error
    return height, width


def not_a_file(mode: int) -> str:
    """Return what a path is, from its `st_mode`; "" if it is a regular file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "")


def require_image(file: str) -> None:
    """Reject anything but a regular file, without opening it.

    Raises:
        UserError: If it is missing, a link to nothing, a folder, FIFO, socket or device.
    """
    try:
        kind = not_a_file(os.stat(file).st_mode)
    except (OSError, ValueError) as error:
        if os.path.islink(file):
            raise UserError(f"{file}: is a link to nothing; replace or remove it") from error
        raise _damaged(file, error) from error
    if kind:
        raise UserError(f"{file}: is {kind}, not an image file; remove it")


def list_images(folder: str | os.PathLike[str], endings: Collection[str] = ENDINGS) -> list[str]:
    """List the image files below a folder, folder by folder, in the order of names.

    Links are followed; hidden files count if their names end like those of images.

    Args:
        folder: Any folder.
        endings: Endings of image names, in lower case.

    Raises:
        UserError: If an image name is not that of a file (see `require_image`), a folder cannot be
            read, or a link leads back to a folder that it is in.
    """
    found: list[str] = []
    inside = [(os.fspath(folder), frozenset[str]())]
    while inside:
        here, above = inside.pop()
        real = os.path.realpath(here)
        if real in above:
            raise UserError(f"{here}: this link leads back to a folder that it is in; remove it")
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{here}: cannot be read ({error.strerror})") from error
        for entry in entries:
            if entry.is_dir():
                inside.append((entry.path, above | {real}))
            elif entry.name.lower().endswith(tuple(endings)):
                if not entry.is_file():
                    require_image(entry.path)
                found.append(entry.path)
    return sorted(found, key=lambda path: (os.path.dirname(path), path))


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    """Open an image; reject anything but a regular file without waiting for it, such as a FIFO."""
    require_image(file)
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        found = os.fstat(stream.fileno())
        if kind := not_a_file(found.st_mode):  # replaced just now
            raise UserError(f"{file}: is {kind}, not an image file; remove it")
        if not found.st_size:
            raise _damaged(file, ValueError("it is empty"))
        yield stream


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
    return UserError(f"{file}: cannot be decoded as an image ({why}); replace or remove it")
