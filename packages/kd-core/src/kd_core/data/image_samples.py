"""Images that worker processes read, each with random numbers of its own."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_core.data.image_files import Pixels, Transform, as_image, as_tensor, read_image
from kd_core.data.sampling import borrowed_generators, seed_generators
from kd_core.errors import UserError
from kd_core.networks.image_task import height_and_width
from kd_core.runtime.failures import first_line
from kd_core.runtime.seed import mix


class Samples(Dataset[Tensor]):
    """Images as uint8 tensors; `__getitems__` takes (epoch, index) pairs and runs in workers.

    An index beyond the last stands for a repeated sample; see `Sampler`.

    Args:
        count: Number of samples.
        image_size: Height and width of the tensors in pixels, or the side of squares.
        data_seed: Seed of the draws that loading an image makes.
    """

    def __init__(self, count: int, image_size: int | tuple[int, int], data_seed: int) -> None:
        self.count, self.size, self.data_seed = count, height_and_width(image_size), data_seed

    def name(self, index: int) -> str:
        """Return what a sample is called in messages."""
        raise NotImplementedError

    def load(self, index: int) -> Tensor:
        """Return an image, uint8 [3, H, W]; a `UserError` names the sample."""
        raise NotImplementedError

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> Tensor | str:
        """Return the images, uint8 [n, 3, H, W], or a text that says what is wrong with one.

        A text, because an exception from a worker would be wrapped in its traceback.
        """
        images = torch.empty(len(pairs), 3, *self.size, dtype=torch.uint8)
        with borrowed_generators():
            for image, (epoch, index) in zip(images, pairs, strict=True):
                seed_generators(mix(self.data_seed, epoch, index))
                try:
                    image.copy_(self.load(index % self.count))
                except UserError as error:
                    return str(error)
        return images


class ImageFiles(Samples):
    """Image files.

    Args:
        files: Paths of the images, bytes [N].
        transform: See `FolderLoader`.
        image_size: See `Samples`.
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
        super().__init__(len(files), image_size, data_seed)
        self.files, self.transform, self.pixels = files, transform, pixels

    def name(self, index: int) -> str:
        """Return the path of a file."""
        return os.fsdecode(self.files[index])

    def load(self, index: int) -> Tensor:
        """Return a file's image after the transform."""
        file = self.name(index)
        image: Any = read_image(file) if self.pixels is None else as_image(self.pixels(file))
        try:
            image = self.transform(image)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{file}: the transform failed on it ({what})") from error
        image = image if isinstance(image, Tensor) else as_tensor(image)
        wanted = (3, *self.size)
        if tuple(image.shape) != wanted or image.dtype != torch.uint8:
            raise UserError(
                f"{file}: the transform gave {image.dtype} {tuple(image.shape)} where uint8 "
                f"{wanted} is wanted; end it with a crop or resize to {self.size}"
            )
        return image
