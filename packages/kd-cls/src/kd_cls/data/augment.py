"""Augmentations of a whole uint8 batch on its device, named in a config by import path."""

from kd_core.config.values import Pixels, checked
from kd_core.data.augment import (
    Augment,
    CropFlip,
    Flip,
    PerImage,
    QuarterTurns,
    Rotate,
    Views,
    apply,
)
from kd_core.data.mix import RICAP, CutMix, Mixup, RolledMixup
from kd_core.data.sampling import Sampling
from kd_core.networks.task import Batch
from torchvision.transforms.v2 import functional as vision

__all__ = [
    "RICAP",
    "Augment",
    "CropFlip",
    "CutMix",
    "Flip",
    "Mixup",
    "PerImage",
    "QuarterTurns",
    "Resize",
    "RolledMixup",
    "Rotate",
    "Views",
    "apply",
]


class Resize:
    """Scale every image to a square, bilinear with antialiasing.

    Args:
        size: New side in pixels.
    """

    @checked
    def __init__(self, size: Pixels) -> None:
        self.size = size

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Scale `image` [N, 3, H, W]."""
        image = vision.resize(batch["image"], [self.size, self.size], antialias=True)
        return {**batch, "image": image}
