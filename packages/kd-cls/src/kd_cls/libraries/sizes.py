"""The size of images that a network was made for, as its library says it."""

import inspect
from typing import Any

from torch import nn
from torchvision.models import Inception3

_OF_TORCHVISION = {Inception3: 299}


def usual_side(network: Any) -> int | None:
    """Return the side of the images that a network was made for, in pixels; None if unknown."""
    facts = getattr(network, "pretrained_cfg", None)
    if isinstance(facts, dict) and facts.get("input_size"):
        return _side_of_embedding(network) or int(facts["input_size"][-1])
    of_transformer = getattr(network, "image_size", None)  # torchvision's
    if type(of_transformer) is int:
        return of_transformer
    return next((side for kind, side in _OF_TORCHVISION.items() if isinstance(network, kind)), None)


def size_advice(network: nn.Module) -> str:
    """Return what to do where images have a size that a network cannot take; "" if unknown."""
    side = usual_side(network)
    if side is None:
        return ""
    name = next((n for n in ("img_size", "image_size") if n in _arguments(network)), None)
    other = f", or build it for yours with network.{name}=PIXELS" if name else ""
    return (
        f"it was made for images of {side} x {side} pixels: set size={side} of its node, to which "
        f"they are resized{other}"
    )


def _side_of_embedding(network: Any) -> int | None:
    """Return the side that a transformer of timm was built for."""
    side = getattr(getattr(network, "patch_embed", None), "img_size", None)
    return int(side[-1]) if isinstance(side, tuple | list) else None


def _arguments(network: nn.Module) -> set[str]:
    found: set[str] = set()
    for kind in type(network).__mro__:
        if "__init__" in vars(kind) and kind is not nn.Module and kind is not object:
            found |= {*inspect.signature(kind).parameters}
    return found
