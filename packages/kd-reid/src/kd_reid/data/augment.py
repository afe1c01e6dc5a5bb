"""Augmentations of re-identification on a whole uint8 batch, beside those of `kd_core.data`."""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.config.values import Colour, Enlargement, Fraction, PositiveShare, Share, checked
from kd_core.data.sampling import Sampling
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from torch import Tensor

from kd_reid.data.statistics import IMAGENET_MEAN, IMAGENET_STD

FILL = tuple(mean + std * mean for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True))
"""torchreid and the strong baseline erase after normalisation with ImageNet's mean, which is a
pixel of mean + std * mean."""


class RandomErasing:
    """Cover a rectangle of every other image with one colour.

    Zhong et al., "Random Erasing Data Augmentation", arXiv:1708.04896.

    Args:
        probability: Share of the images.
        area: Smallest and largest share of the image that is covered.
        aspect: Smallest height over width; the largest is its inverse.
        fill: The colour, in [0, 1].
    """

    tries = 16  # of a rectangle that fits; nearly all do at once

    @checked
    def __init__(
        self,
        probability: Share = 0.5,
        *,
        area: tuple[Fraction, Fraction] = (0.02, 0.4),
        aspect: PositiveShare = 0.3,
        fill: Colour = FILL,
    ) -> None:
        if area[0] > area[1]:
            raise UserError(f"RandomErasing: area is {area}; wanted the smallest share first")
        self.probability, self.area, self.aspect = probability, area, aspect
        self.fill = tuple(round(255 * value) for value in fill)

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Erase in `image` uint8 [N, 3, H, W]."""
        images = batch["image"]
        height, width = images.shape[-2:]
        erased = sampling.uniform(0, 1) < self.probability
        box_height, box_width = self._box(height * width, sampling)
        fits = (box_height < height) & (box_width < width)
        first = fits.int().argmax(0, keepdim=True)
        box_height, box_width = box_height.gather(0, first)[0], box_width.gather(0, first)[0]
        erased = erased & fits.any(0)
        # Places count from 0 to the last at which the whole rectangle is inside.
        top = (sampling.uniform(0, 1) * (height - box_height + 1)).long()
        left = (sampling.uniform(0, 1) * (width - box_width + 1)).long()
        rows = _between(torch.arange(height, device=images.device), top, box_height)
        columns = _between(torch.arange(width, device=images.device), left, box_width)
        covered = (rows[:, :, None] & columns[:, None, :] & erased[:, None, None])[:, None]
        colour = torch.stack([images.new_full((), value) for value in self.fill])
        return {**batch, "image": torch.where(covered, colour[:, None, None], images)}

    def _box(self, pixels: int, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """Draw heights and widths in pixels, [tries, N]."""
        heights, widths = [], []
        for _ in range(self.tries):
            area = sampling.uniform(*self.area) * pixels
            aspect = sampling.uniform(self.aspect, 1 / self.aspect)
            heights.append((area * aspect).sqrt().round().long())
            widths.append((area / aspect).sqrt().round().long())
        return torch.stack(heights), torch.stack(widths)


class ZoomCrop:
    """Enlarge every other image by an eighth and crop it at random to the size it had.

    torchreid's `random_crop`, which enlarges the image of the file; here the image is resized
    before.

    Args:
        probability: Share of the images.
        scale: Factor of height and width.
    """

    @checked
    def __init__(self, probability: Share = 0.5, *, scale: Enlargement = 1.125) -> None:
        self.probability, self.scale = probability, scale

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Crop `image` uint8 [N, 3, H, W]."""
        images = batch["image"]
        height, width = images.shape[-2:]
        size = round(height * self.scale), round(width * self.scale)
        large = F.interpolate(images.float(), size, mode="bilinear", align_corners=False)
        large = large.round().to(images.dtype)
        top, left = sampling.below(size[0] - height + 1), sampling.below(size[1] - width + 1)
        y = top[:, None] + torch.arange(height, device=images.device)
        x = left[:, None] + torch.arange(width, device=images.device)
        image = torch.arange(len(images), device=images.device)[:, None, None, None]
        channel = torch.arange(images.shape[1], device=images.device)[:, None, None]
        crops = large[image, channel, y[:, None, :, None], x[:, None, None, :]]
        zoomed = (sampling.uniform(0, 1) < self.probability)[:, None, None, None]
        return {**batch, "image": torch.where(zoomed, crops, images)}


def _between(places: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Return which places are among the `count` from `first` on, bool [N, places]."""
    return (places >= first[:, None]) & (places < (first + count)[:, None])
