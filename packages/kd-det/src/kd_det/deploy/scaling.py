"""How a picture becomes the input of a detector, and what it finds comes back to the picture."""

from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from kd_core.data.image_files import read_pixels
from kd_core.errors import UserError
from torch import Tensor


class Scaling(NamedTuple):
    """What is done to a picture.

    Attributes:
        channels: "RGB" or "BGR", their order in the input.
        shorter_side: Of the input in pixels; 0 leaves the picture's size.
        longest_side: At most that of the input; then the shorter one is shorter.
        padding: Colour beside the picture in an input of fixed size, in the order of `channels`.
        fixed: Height and width of the input, where an exported file takes no other.
    """

    channels: str
    shorter_side: int
    longest_side: int
    padding: tuple[float, ...]
    fixed: tuple[int, int] | None = None


def scaling_of(cfg: CfgNode, fixed: tuple[int, int] | None = None) -> Scaling:
    """Return what a config does to a picture in evaluation.

    Raises:
        UserError: If the detector does not take RGB or BGR images.
    """
    node = cfg.INPUT
    if node.FORMAT not in ("RGB", "BGR"):
        raise UserError(f"INPUT.FORMAT is {node.FORMAT!r}; only RGB and BGR can be deployed")
    sides = int(node.MIN_SIZE_TEST), int(node.MAX_SIZE_TEST)
    return Scaling(node.FORMAT, *sides, tuple(map(float, cfg.MODEL.PIXEL_MEAN)), fixed)


def to_input(pixels: np.ndarray, scaling: Scaling) -> tuple[Tensor, tuple[int, int]]:
    """Scale a picture, as Detectron2 does in evaluation; pad it where the size is fixed.

    Args:
        pixels: uint8 [H, W, 3] in RGB.
        scaling: What is done.

    Returns:
        The input, float32 [3, H', W'], and height and width of the picture in it.
    """
    resize = ResizeShortestEdge([scaling.shorter_side] * 2, scaling.longest_side)
    if scaling.fixed is not None:
        resize = _Fit(scaling.fixed)
    pixels = resize.get_transform(pixels).apply_image(pixels)
    ordered = pixels[:, :, ::-1] if scaling.channels == "BGR" else pixels
    image = torch.from_numpy(np.ascontiguousarray(ordered.transpose(2, 0, 1))).float()
    height, width = image.shape[1:]
    if scaling.fixed is not None:
        padded = torch.tensor(scaling.padding)[:, None, None].repeat(1, *scaling.fixed)
        padded[:, :height, :width] = image
        image = padded
    return image, (height, width)


def read_picture(file: str, scaling: Scaling) -> np.ndarray:
    """Return a picture, uint8 [H, W, 3] in RGB, upright.

    Raises:
        UserError: If it cannot be read, or its shorter side would be scaled to nothing.
    """
    pixels = read_pixels(file)
    height, width = pixels.shape[:2]
    if scaling.shorter_side and scaling.fixed is None:
        sides = scaling.shorter_side, scaling.longest_side
        if min(ResizeShortestEdge.get_output_shape(height, width, *sides)) < 1:
            raise UserError(
                f"{file}: is {width} x {height} pixels, of which nothing is left where the longer "
                f"side is scaled to {scaling.longest_side}; cut it, or leave it out"
            )
    return pixels


def to_picture(found: Instances, size: tuple[int, int], pixels: np.ndarray) -> Instances:
    """Return what was found in the pixels of the picture; what is outside of it is left out.

    Args:
        found: In the input.
        size: Height and width of the picture in the input.
        pixels: The picture.
    """
    inside = Instances(size, **found.get_fields())
    return detector_postprocess(inside, *pixels.shape[:2])


class _Fit(ResizeShortestEdge):
    """Scales a picture to the largest size that fits into height and width."""

    def __init__(self, room: tuple[int, int]) -> None:
        super().__init__([1, 1])
        self.room = room

    def get_transform(self, image: np.ndarray) -> Any:
        """Return the scaling of a picture, uint8 [H, W, 3]."""
        from detectron2.data.transforms import ResizeTransform

        height, width = image.shape[:2]
        part = min(self.room[0] / height, self.room[1] / width)
        new = [
            min(max(round(side * part), 1), most)
            for side, most in zip((height, width), self.room, strict=True)
        ]
        return ResizeTransform(height, width, *new)
