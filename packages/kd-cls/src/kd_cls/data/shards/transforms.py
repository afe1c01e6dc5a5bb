"""Transforms of training images that are computed on tensors."""

from collections.abc import Callable
from typing import Any

from kd_core.data.image_files import as_tensor
from PIL import Image
from torch import Tensor


class OnTensor:
    """Run a transform of torchvision on a tensor instead of a PIL image, in half the time.

    It draws the same numbers; pixels differ by rounding, a level of 255 at most.

    Args:
        transform: Takes and returns uint8 [3, H, W].
    """

    def __init__(self, transform: Callable[[Any], Tensor]) -> None:
        self.transform = transform

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the transformed image, uint8 [3, H, W]."""
        return self.transform(as_tensor(image))
