"""Images that a user gives to a finished embedder: read right, or refused in one line."""

from typing import Any

from kd_core.errors import UserError
from kd_core.networks.image_range import check_range
from torch import Tensor, nn

_CHANNELS = (1, 3)


def check_images(images: Any) -> None:
    """Reject what is not images [N, 1 or 3, H, W], uint8 or floats in [0, 1].

    Raises:
        UserError: If a dimension is missing or misplaced, channels are not of grey or colour, or
            floats are from 0 to 255.
    """
    if not isinstance(images, Tensor):
        raise UserError(
            f"images are a {type(images).__name__}; wanted a tensor [N, 3, height, width]"
        )
    shape = list(images.shape)
    advice = ""
    if images.dim() == 3:
        advice = "; of one image make a batch: images[None]"
    elif images.dim() == 4 and shape[1] not in _CHANNELS and shape[3] in (1, 3, 4):
        advice = "; the channels are last: images.permute(0, 3, 1, 2)"
    elif images.dim() == 4 and shape[1] == 4:
        advice = "; of four channels the last may be transparency: images[:, :3]"
    if images.dim() != 4 or shape[1] not in _CHANNELS:
        raise UserError(f"images are {shape}; wanted [N, 3, height, width]{advice}")
    if not images.numel():
        raise UserError(f"images are {shape}: there are none; wanted [N, 3, height, width]")
    check_range(images, normalised=True)


def refuse_others(embedder: nn.Module) -> None:
    """Let an embedder check its images whenever it is called with a batch."""
    embedder.register_forward_pre_hook(_check_batch)


def _check_batch(embedder: nn.Module, given: tuple[Any, ...]) -> None:
    if given and isinstance(given[0], dict) and "image" in given[0]:
        check_images(given[0]["image"])
