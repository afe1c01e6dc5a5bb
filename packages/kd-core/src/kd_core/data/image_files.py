"""Image files as tensors: decoding, one random seed a sample, errors that name the file."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from PIL import __version__ as _pillow
from torch import Tensor
from torch.utils.data import Dataset

from kd_core.data.draws import borrowed_generators, seed_generators
from kd_core.errors import UserError
from kd_core.image_task import height_and_width
from kd_core.seed import mix

Transform = Callable[[Image.Image], Image.Image | Tensor]
Pixels = Callable[[str], np.ndarray]  # from a file to its pixels, uint8 [H, W, 3]
DECODER = f"Pillow {_pillow}"  # another version may round pixels otherwise


class ImageFiles(Dataset[Tensor]):
    """Image files as uint8 tensors; `__getitems__` takes (epoch, index) pairs, runs in workers.

    An index beyond the last is that of a sample which comes several times; see `Sampler`.

    Args:
        files: Paths of the images, bytes [N].
        transform: See `FolderLoader`.
        image_size: Height and width of the tensors in pixels, or the side of squares.
        data_seed: Seed of the transform's draws.
        pixels: Gives the pixels of a file; None decodes it.
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
        """Return the images, uint8 [n, 3, H, W], or what is wrong with one of them.

        An exception would arrive from a worker wrapped in its traceback, hence the text.
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
        image = self.transform(
            read_image(file) if self.pixels is None else Image.fromarray(self.pixels(file))
        )
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
        with Image.open(file) as image:
            if not image.mode.startswith(("I", "F")):
                # A palette with transparency goes by way of RGBA, else Pillow warns.
                via = image.convert("RGBA") if "transparency" in image.info else image
                via.load()
                return via if via.mode == "RGB" else via.convert("RGB")  # which would copy
            mode = image.mode
    except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error
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
    """Return height and width of what `read_pixels` gives, from the header alone.

    Raises:
        UserError: If there is no header of an image.
    """
    try:
        with Image.open(file) as image:
            width, height = _reduced(image.size, side)
    except Exception as error:
        raise _damaged(file, error) from error
    return height, width


def _reduced(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Return a size in pixels with its shorter side lowered to `side`."""
    shorter = min(size)
    if side is None or shorter <= side:
        return size
    width, height = (max(1, length * side // shorter) for length in size)
    return width, height


def _damaged(file: str, error: Exception) -> UserError:
    return UserError(f"{file}: cannot be decoded as an image ({error}); replace or remove it")
