"""Clipping of gradients before an optimizer's step, without a call for every parameter."""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn


def clips(clip: CfgNode) -> bool:
    """Return whether the node `SOLVER.CLIP_GRADIENTS` asks for what `clipping` does.

    `norm` is Detectron2's, to the bit: the norm of each parameter's gradient by itself. Its library
    calls torch once for every parameter, which took a quarter of the demo's step. `full_model`, the
    norm of all gradients, is in its projects and not in its library. `value` is left to it.
    """
    return bool(clip.ENABLED) and clip.CLIP_TYPE in ("norm", "full_model")


def clipping(clip: CfgNode, optimizer: torch.optim.Optimizer) -> Callable[..., None]:
    """Return what clips the gradients of an optimizer's parameters before its step."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]

    def clip_now(*_: Any) -> None:
        if clip.CLIP_TYPE == "full_model":
            nn.utils.clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)
        else:
            clip_each(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)

    return clip_now


def clip_each(parameters: list[nn.Parameter], limit: float, norm_type: float) -> None:
    """Scale every gradient whose own norm is above the limit, as `clip_grad_norm_` of each does."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    if not gradients:
        return
    norms = torch._foreach_norm(gradients, norm_type)
    factors = [(limit / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, factors)
