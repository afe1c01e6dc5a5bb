"""Positions of a transformer at another size of images than its weights: as its library has it."""

import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from kd_core.runtime import distributed
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

State = dict[str, Tensor]

_OF_POSITIONS = re.compile(r"pos_embed|pos_embedding|relative_position|rel_pos|attn_mask")


def with_positions(network: nn.Module, state: State) -> State:
    """Return weights whose positions are interpolated to a network's grid, if only these differ.

    timm's and torchvision's own functions do it, those that they call for their pretrained weights;
    what they cannot bring to the network's shapes stays as it is, and is refused by whoever loads
    it. A line says what was interpolated.

    Args:
        network: Built for the size of its images, such as timm's with `img_size=96`.
        state: Tensors by the network's names.
    """
    own = network.state_dict()
    other = [name for name, value in state.items() if name in own and _differs(value, own[name])]
    if not other or not all(map(_OF_POSITIONS.search, other)):
        return state
    resize = _function_of(network)
    if resize is None:
        return state
    try:
        made = resize(dict(state))
    except Exception:  # a library may fail in any way on weights that are not its own
        return state
    if any(name not in made or _differs(made[name], own[name]) for name in other):
        return state
    name = other[0]
    distributed.print_note(
        f"{type(network).__name__}: positions of another image size are interpolated, as its "
        f"library does ({name}: {list(state[name].shape)} to {list(made[name].shape)})"
    )
    return {**state, **{name: made[name] for name in other}}


def _differs(value: Tensor, own: Tensor) -> bool:
    return value.shape != own.shape


def _function_of(network: Any) -> Callable[[State], State] | None:
    """Return what brings weights of a known library to a network's size; None without it."""
    if isinstance(network, VisionTransformer):
        return partial(interpolate_embeddings, network.image_size, network.patch_size)
    for kind in type(network).__mro__:
        if kind.__module__.startswith("timm.models."):
            convert = getattr(sys.modules[kind.__module__], "checkpoint_filter_fn", None)
            return None if convert is None else partial(convert, model=network)
    return None
