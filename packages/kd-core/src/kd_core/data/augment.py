"""Augmentations of a whole uint8 batch on its device, named in a config by import path."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kd_core.config.values import Finite, Margin, Pixels, checked
from kd_core.data.sampling import Sampling, borrowed_generators, seed_generators
from kd_core.errors import UserError
from kd_core.networks.task import Batch

Augment = Callable[[Batch, Sampling], Batch]


def apply(augments: Sequence[Augment], batch: Batch, sampling: Sampling) -> Batch:
    """Run augmentations in order; keep `crop_id` only where it identifies the whole image."""
    for augment in augments:
        batch = augment(batch, sampling)
    if sampling.count > 1:
        batch.pop("crop_id", None)
    return batch


class CropFlip:
    """Crop at random from the zero-padded image and mirror every other one.

    Adds `crop_id` = (dy * columns + dx) * 2 + flip, int64 [N]; for padding 4 it is below
    9 * 9 * 2 = 162. With `index` it identifies the augmented image, so that a cache of teacher
    outputs can be exact.

    Args:
        padding: Zeros added on each side, in pixels.
        size: Side of the crop in pixels; None keeps the size of the input.
        flip: Whether to mirror with probability one half; without it the ids are even.
    """

    @checked
    def __init__(
        self, padding: Margin = 4, *, size: Pixels | None = None, flip: bool = True
    ) -> None:
        self.padding, self.size, self.flip = padding, size, flip

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Crop `image` [N, 3, H, W]."""
        rows, columns = (self._positions(side) for side in batch["image"].shape[-2:])
        crop_id = sampling.below(rows * columns * 2)
        if not self.flip:
            crop_id = crop_id - crop_id % 2
        return {**batch, "image": self.crop(batch["image"], crop_id), "crop_id": crop_id}

    def count_views(self, shape: Sequence[int]) -> int:
        """Return the limit of `crop_id` for images [..., H, W]."""
        return 2 * self._positions(shape[-2]) * self._positions(shape[-1])

    def crop(self, images: Tensor, crop_id: Tensor) -> Tensor:
        """Cut the crops of these ids: one gather for the batch."""
        height, width = (self.size or side for side in images.shape[-2:])
        columns = self._positions(images.shape[-1])
        padded = F.pad(images, (self.padding,) * 4)
        x = torch.arange(width, device=images.device)
        x = torch.where((crop_id % 2 == 1)[:, None], width - 1 - x, x)  # [N, W]
        x = x + (crop_id // 2 % columns)[:, None]
        y = torch.arange(height, device=images.device) + (crop_id // 2 // columns)[:, None]
        return _gather(padded, y[:, :, None] * padded.shape[-1] + x[:, None, :])

    def _positions(self, side: int) -> int:
        positions = side + 2 * self.padding - (self.size or side) + 1
        if positions < 1:
            raise UserError(
                f"CropFlip: cannot cut {self.size} pixels from {side} + 2 * {self.padding}; "
                "put Resize before it, or lower its size"
            )
        return positions


class Flip:
    """Mirror every other image."""

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Mirror `image` [N, 3, H, W] left to right with probability one half."""
        flip = sampling.below(2).bool()[:, None, None, None]
        return {**batch, "image": torch.where(flip, batch["image"].flip(-1), batch["image"])}


class Rotate:
    """Rotate each image about its centre; nearest pixel, black outside, as torchvision does.

    Args:
        degrees: Angles are uniform in [-degrees, degrees).
    """

    @checked
    def __init__(self, degrees: Finite) -> None:
        self.degrees = degrees

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Rotate `image` [N, 3, H, W]."""
        angle = sampling.uniform(-self.degrees, self.degrees)
        return {**batch, "image": self.rotate(batch["image"], angle)}

    def rotate(self, images: Tensor, angle: Tensor) -> Tensor:
        """Rotate counter-clockwise by angles in degrees, [N]."""
        height, width = images.shape[-2:]
        radians = (angle * (math.pi / 180))[:, None, None]
        y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
        x = torch.arange(width, device=images.device) - (width - 1) / 2
        source_x = (radians.cos() * x - radians.sin() * y + (width - 1) / 2).round().long()
        source_y = (radians.sin() * x + radians.cos() * y + (height - 1) / 2).round().long()
        inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
        place = source_y.clamp(0, height - 1) * width + source_x.clamp(0, width - 1)
        return _gather(images, place) * inside[:, None]


BY_IMAGE = (CropFlip, Flip, Rotate)
"""Augmentations that return one image for each, whatever batch it is in."""


class PerImage:
    """Run a torchvision transform on one image after the other, each with its own seed.

    It must take and return uint8 [3, H, W] and draw only from torch's or Python's generator:
    `torchvision.transforms.v2.RandAugment`, `AutoAugment`, `ColorJitter` and the like. Slower by
    orders of magnitude than the batched augmentations.

    Args:
        transform: The transform.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Transform `image` [N, 3, H, W]."""
        images: list[Tensor] = []
        with borrowed_generators():
            for image, seed in zip(batch["image"], sampling.seeds(), strict=True):
                seed_generators(seed)
                images.append(self.transform(image))
        return {**batch, "image": torch.stack(images) if images else batch["image"]}


class Views:
    """Several augmented views of the same images, view-major: everything has V * N rows.

    Adds `num_views`. MLKD takes a weak and a strong view.

    Args:
        views: One list of augmentations for each view.
    """

    def __init__(self, views: Sequence[Sequence[Augment]]) -> None:
        self.views = views

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Make the views of `image` [N, 3, H, W]."""
        views = [apply(view, batch.copy(), sampling)["image"] for view in self.views]
        return _view_major(batch, views)


class QuarterTurns:
    """Four views: the image and its rotations by 90, 180 and 270 degrees, for SSKD."""

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Make `image` [4 * N, 3, H, W] of [N, 3, H, W], with H = W."""
        views = [torch.rot90(batch["image"], turns, (-2, -1)) for turns in range(4)]
        return _view_major(batch, views)


def _view_major(batch: Batch, views: Sequence[Tensor]) -> Batch:
    """Concatenate views, each with the labels and all other entries of the images."""
    entries = cast(dict[str, Tensor], batch).items()
    rows = {name: torch.cat([value] * len(views)) for name, value in entries if name != "image"}
    return {**cast(Batch, rows), "image": torch.cat(list(views)), "num_views": len(views)}


def _gather(images: Tensor, place: Tensor) -> Tensor:
    """Take pixels [N, H, W] (positions in a flattened image) from every channel of its image."""
    channels = images.shape[1]
    index: Any = place.flatten(1)[:, None].expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).unflatten(2, place.shape[1:])
