"""Images and networks of one channel (grey) or three (colour), in any combination."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.runtime import distributed

GREY = (0.299, 0.587, 0.114)
"""Red, green and blue in a grey value: the luminance of ITU-R BT.601, as Pillow has it."""
GREY_TEXT = "0.299 red + 0.587 green + 0.114 blue"

Statistics = Sequence[float]


def input_channels(network: nn.Module, lazy: int = 3) -> int:
    """Return how many channels of images a network takes, 1 or 3, by its first convolution.

    The first in the order of its modules; 3 where there is none, or one of other channels.

    Args:
        network: The network.
        lazy: What is returned for a lazy convolution, which takes what it gets.
    """
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    first = next(convolutions, None)
    if first is not None and not first.in_channels:
        return lazy
    return 1 if first is not None and first.in_channels == 1 else 3


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Return float images [N, 1 or 3, H, W] with so many channels.

    Colour becomes grey by `GREY`; grey is repeated, as a view.

    Raises:
        UserError: If the images have another number of channels.
    """
    found = images.shape[1]
    if found == channels:
        return images
    if {found, channels} != {1, 3}:
        raise UserError(
            f"the images have {found} channels, and the network's mean and std {channels}; wanted "
            "1 (grey) or 3 (colour) of each"
        )
    if found == 1:
        return images.expand(-1, channels, -1, -1)
    red, green, blue = (images[:, c : c + 1] * share for c, share in enumerate(GREY))
    return red + green + blue


def statistics_for(
    network: nn.Module, found: tuple[Statistics, Statistics], where: str
) -> tuple[Statistics, Statistics]:
    """Return mean and std for the channels that a network takes; print those of grey images.

    Those of colour become one by `GREY`: the mean exactly, the deviation as if the colours rose and
    fell together. One number holds for each colour.

    Args:
        network: The network.
        found: Mean and std of the data, of three channels or of one.
        where: Place of the network's node, for the message.
    """
    channels = input_channels(network)
    mean, std = (_of_channels(values, channels) for values in found)
    if channels == 1 and len(found[0]) == 3:
        distributed.print_note(
            f"{where}: the network takes one channel, so images become grey ({GREY_TEXT}), with "
            f"mean {mean[0]:g} and std {std[0]:g}; others: {where}.mean=[...] {where}.std=[...]"
        )
    return mean, std


def _of_channels(values: Statistics, channels: int) -> Statistics:
    if len(values) == channels:
        return values
    if len(values) == 1:
        return (values[0],) * channels
    grey = sum(share * value for share, value in zip(GREY, values, strict=True))
    return (round(grey, 6),)


def per_channel(values: Statistics, name: str) -> Tensor:
    """Return one value for each channel as a tensor [1 or 3, 1, 1].

    Raises:
        UserError: If there are neither one nor three numbers.
    """
    if not isinstance(values, Sequence) or len(values) not in (1, 3):
        raise UserError(
            f"{name} needs three numbers, one a channel, or one of grey images; got {values!r}"
        )
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
