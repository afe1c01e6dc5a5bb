"""Samples: images by number, as worker processes read them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_core.data.sampling import borrowed_generators, seed_generators
from kd_core.errors import UserError
from kd_core.networks.image_task import height_and_width
from kd_core.runtime.seed import mix


class Samples(Dataset[Any]):
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

    def image(self, index: int) -> Tensor:
        """Return an image, uint8 [3, H, W]; a `UserError` names the sample."""
        raise NotImplementedError

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> Any:
        """Return the images, uint8 [n, 3, H, W], or a text that says what is wrong with one.

        A text, because an exception from a worker would be wrapped in its traceback.
        """
        images = torch.empty(len(pairs), 3, *self.size, dtype=torch.uint8)
        with borrowed_generators():
            for image, (epoch, index) in zip(images, pairs, strict=True):
                seed_generators(mix(self.data_seed, epoch, index))
                try:
                    image.copy_(self.image(index % self.count))
                except UserError as error:
                    return str(error)
        return images

    def more_broken(self, problem: str) -> str:
        """Return what is to be said of other samples that cannot be read, where one cannot.

        Args:
            problem: What is wrong with the first one.
        """
        return ""

    def fingerprint(self) -> str:
        """Return a hash that differs for other samples."""
        raise NotImplementedError

    def contents(self) -> str:
        """Return a hash of what the samples are made of, before they are transformed.

        For samples that cannot say so, it is the hash of what is made of them.
        """
        return self.fingerprint()
