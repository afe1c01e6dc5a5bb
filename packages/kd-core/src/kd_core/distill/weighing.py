"""Named losses: weighted by name, added to the one that is minimised."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from kd_core.errors import UserError, nearest

Losses = dict[str, Tensor]


def weigh(losses: Losses, weights: float | Mapping[str, float]) -> Losses:
    """Multiply losses by a factor, or by factors by name; one of factor 0 is left out.

    Raises:
        UserError: If they are not losses by name, or a factor is for another name.
    """
    if not isinstance(losses, Mapping):
        raise UserError(
            f"the student returned a {type(losses).__name__} in training; wanted a dict of "
            "named losses; wrap the network in a Task"
        )
    if not isinstance(weights, Mapping):
        weights = dict.fromkeys(losses, weights)
    for name in weights:
        if name not in losses:
            raise UserError(f"task_weight: no loss {name!r}{nearest(name, losses)}")
    factors = {name: weights.get(name, 1.0) for name in losses}
    return {name: factor * losses[name] for name, factor in factors.items() if factor}


def refuse_names(
    names: Collection[str], own: Collection[str], weights: float | Mapping[str, float], where: str
) -> None:
    """Reject names of a term's losses that are those of the student's own.

    Args:
        names: Of the term, and of the loss that it has with others.
        own: Of the student's losses.
        weights: See `weigh`; a loss of factor 0 is left out, and its name is free.
        where: Place of the term.

    Raises:
        UserError: If there is one.
    """
    for name in sorted(set(names) & set(own)):
        if weights.get(name, 1.0) if isinstance(weights, Mapping) else weights:
            raise UserError(f"{where}: {name!r} has the name of a loss of the student; rename it")


def shape_problem(loss: Any, *, each_image: bool = False) -> str:
    """Return what is wrong with a loss that must be a scalar, or [N]; "" if nothing is.

    Args:
        loss: Whatever was returned as one.
        each_image: Whether it must be [N], one loss for every image.
    """
    if isinstance(loss, Tensor) and loss.ndim == int(each_image):
        return ""
    came = "None" if loss is None else f"a {type(loss).__name__}"
    if isinstance(loss, Tensor):
        came = f"a loss of shape {list(loss.shape)}"
    scalar = "a scalar, the mean over the batch, see kd_core.functional.batch_mean"
    return f"returned {came}; wanted {'one loss for every image, [N]' if each_image else scalar}"


def sum_losses(losses: Losses) -> Tensor:
    """Add the losses to the one that is minimised.

    Raises:
        UserError: If there are none, or one is not a scalar.
    """
    require_losses(len(losses), losses)
    for name, loss in losses.items():
        if problem := shape_problem(loss):
            raise UserError(f"loss {name!r} of the student: the task {problem}")
    return torch.stack([loss.float() for loss in losses.values()]).sum()


def require_losses(task_weight: float | Mapping[str, float], others: Collection[str]) -> None:
    """Reject a training in which nothing is learned.

    Args:
        task_weight: Of the task's losses.
        others: Names of other losses.

    Raises:
        UserError: If there are no losses.
    """
    if task_weight == 0 and not others:
        raise UserError(
            "nothing to learn: no task loss (task_weight=0, or images without labels) and no term; "
            "add a method, whose terms learn from a teacher"
        )
