"""How the weight of a term grows at the start of a run, and falls towards its end."""

from typing import Literal

import torch
from torch import Tensor

from kd_core.errors import UserError


def warmed_up(
    epochs: float, by: Literal["epoch", "step"], steps: Tensor, steps_per_epoch: int
) -> float | Tensor:
    """Return the part of a weight that its warm-up has reached; it stays on the device.

    Args:
        epochs: Of the warm-up; 0 is none.
        by: Whether it grows once an epoch or in every step.
        steps: Optimizer steps that are done.
        steps_per_epoch: 0 if nobody has said.

    Raises:
        UserError: If the length of an epoch is needed, and not known.
    """
    if not epochs:
        return 1.0
    if not steps_per_epoch:
        raise UserError(
            f"it warms up over {epochs} epochs: call distiller.begin(steps_per_epoch) before "
            "training and distiller.advance() after every optimizer step"
        )
    if by == "epoch":
        return ((steps // steps_per_epoch + 1) / epochs).clamp(max=1.0)
    return ((steps + 1) / (epochs * steps_per_epoch)).clamp(max=1.0)


def fallen(
    after: float | None, steps: Tensor, steps_per_epoch: int, epochs: int | None
) -> float | Tensor:
    """Return the part of a weight that is left; it stays on the device.

    Half a cosine, by the number of the epoch from 1: 1 up to epoch `after`, 0 in the last one.

    Args:
        after: Epochs without a fall; None keeps the weight, as does a run that is not longer.
        steps: Optimizer steps that are done.
        steps_per_epoch: 0 if nobody has said.
        epochs: Of the whole run; None if nobody has said.

    Raises:
        UserError: If one of the lengths is needed, and not known.
    """
    if after is None:
        return 1.0
    if not steps_per_epoch or epochs is None:
        raise UserError(
            f"its weight falls after {after:g} epochs until the end of the run: call "
            "distiller.begin(steps_per_epoch, epochs) before training and distiller.advance() "
            "after every optimizer step"
        )
    if epochs <= after:
        return 1.0
    share = (steps // steps_per_epoch + 1 - after) / (epochs - after)
    return (1 + (torch.pi * share.clamp(0, 1)).cos()) / 2
