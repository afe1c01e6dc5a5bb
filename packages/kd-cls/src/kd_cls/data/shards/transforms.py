"""Transforms of training images in shards."""

import torch.nn.functional as F  # noqa: N812
from kd_core.data.image_files import as_tensor
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2


class ResizedCrop:
    """RandomResizedCrop that scales a tensor, in half the time that a PIL image takes.

    It makes the draws of torchvision's; pixels differ by rounding, a level of 255 at most.

    Args:
        size: Side of the crop in pixels, after scaling.
    """

    def __init__(self, size: int) -> None:
        self.size, self.drawn = size, v2.RandomResizedCrop(size)

    def __call__(self, image: Image.Image) -> Tensor:
        """Cut an image; returns uint8 [3, size, size]."""
        place = self.drawn.make_params([image])
        left, top = place["left"], place["top"]
        crop = image.crop((left, top, left + place["width"], top + place["height"]))
        pixels = as_tensor(crop)[None]  # in NHWC memory, which torch scales fast
        size = [self.size, self.size]
        return F.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
