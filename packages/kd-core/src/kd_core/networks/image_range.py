"""Whether float images are in [0, 1], as every task takes them."""

import torch
from torch import Tensor

from kd_core.errors import UserError
from kd_core.runtime import distributed

_OVERSHOOT = 0.25  # what resampling with negative weights may add to [0, 1]
_BYTES = 8.0  # no normalised image is so bright


def check_range(images: Tensor, *, normalised: bool) -> None:
    """Reject float images outside [0, 1]; reads their extremes from the device.

    Args:
        images: Of a first batch; bytes are always right.
        normalised: Whether mean and std are applied to them. Otherwise they may be anything, and
            only the range of bytes is printed.

    Raises:
        UserError: If mean and std are applied to floats from 0 to 255, or to normalised ones.
    """
    if not images.is_floating_point() or not images.numel():
        return
    low, high = torch.stack(images.detach().float().aminmax()).tolist()
    are_bytes = high > _BYTES and low >= -_OVERSHOOT
    text = f"images are floats from {low:.3g} to {high:.3g}"
    if are_bytes and not normalised:
        distributed.print_note(
            f"{text}, and no mean and std are set: is the network made for 0 to 255?"
        )
    elif are_bytes:
        raise UserError(f"{text}; wanted uint8, or floats in [0, 1]: divide them by 255")
    elif normalised and (low < -_OVERSHOOT or high > 1 + _OVERSHOOT):
        raise UserError(
            f"{text}; wanted uint8, or floats in [0, 1]. If they are normalised already, it would "
            "be done twice: leave it out of the data, or set mean=None and std=None in the model"
        )
