"""Roles of torchvision's classifiers: the ends of their stages, seen in a pass."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_cls.families.recording import Recording, distinct, record
from kd_cls.families.search import Roles, layout_at, of_blocks, pooled_of_logits, with_tokens

_CHAINS = ("features", "trunk_output", "blocks", "layers", "")
"""Where the children are that run one after the other; the network itself at last."""


def is_of_torchvision(network: nn.Module) -> bool:
    """Return whether a network is one of torchvision's classifiers, or a subclass of one."""
    return any(made.__module__.startswith("torchvision.models.") for made in type(network).__mro__)


def torchvision_roles(network: nn.Module, sizes: Sequence[tuple[int, int]] = ()) -> Roles:
    """Return `stages`, `map`, `tokens`, `cls` and `pooled`, as far as a network has them.

    `stages` are those from stride 4 on: of each resolution the last child that is a block, without
    a 1x1 convolution that ends the network; of a ViT the ends of its four quarters.

    Args:
        network: Its weights, modes and generators are as before afterwards.
        sizes: Height and width of images that it might take.
    """
    with distinct(network):
        seen = record(network, network, sizes)
    if seen is None:
        return {}
    pooled = pooled_of_logits(network, seen)
    roles: Roles = {} if pooled is None else {"pooled": (pooled,)}
    if isinstance(getattr(network, "class_token", None), nn.Parameter):
        layers = _children(network, "encoder.layers")
        blocks = [f"encoder.layers.{name}:tokens" for name, _ in layers]
        last: Roles = {"map": ("encoder.ln:tokens",), "tokens": ("encoder.ln:tokens",)}
        return {**roles, **of_blocks(blocks), **last, "cls": ("encoder.ln:cls",)}
    roles |= _map(network, seen, pooled)
    if stages := tuple(_stages(network, seen)):
        roles["stages"] = stages
        if stages[-1].endswith(":nhwc") and "map" in roles:
            roles["tokens"] = (f"{roles['map'][0].removesuffix(':nchw')}:nchw:tokens",)
    return roles


def _children(network: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    return list(network.get_submodule(path).named_children())


def _stages(network: nn.Module, seen: Recording) -> Iterator[str]:
    """Yield the tap of the end of every stage."""
    chain = next(c for c in _CHAINS if not c or isinstance(getattr(network, c, None), nn.Module))
    group: list[tuple[str, nn.Module]] = []
    before = seen.image.shape[2]
    for name, module in _children(network, chain):
        path = f"{chain}.{name}" if chain else name
        found = _map_of(seen, path)
        if found is None:
            continue
        tap, height = found
        if height < 0.75 * before and group:  # convolutions without padding take a few pixels
            yield from _end_of(group, seen, before)
        if height < 0.75 * before:
            group, before = [], height
        group.append((tap, module))
    yield from _end_of(group, seen, before)


def _map_of(seen: Recording, path: str) -> tuple[str, int] | None:
    """Return the tap and the height of a module's map; None if it gives none."""
    value = seen.at(path)
    if value is None or value.dim() != 4:
        return None
    ratio = seen.image.shape[3] / seen.image.shape[2]
    orders = {":nhwc": value.shape[1:3], seen.order: value.shape[2:]}
    fits = [order for order, (h, w) in orders.items() if h > 1 and abs(h * ratio - w) < 2]
    return (path + fits[0], orders[fits[0]][0]) if len(fits) == 1 else None


def _end_of(group: list[tuple[str, nn.Module]], seen: Recording, height: int) -> Iterator[str]:
    """Yield the tap of the last block of a stage; nothing for the stem or a single pooling."""
    weighty = [(tap, module) for tap, module in group if any(True for _ in module.parameters())]
    if not weighty or height > seen.image.shape[2] / 4 + 1:
        return
    blocks = [tap for tap, module in group if any(True for _ in module.children())]
    if len(blocks) > 1 and _is_pointwise(dict(group)[blocks[-1]]):
        blocks.pop()  # what makes the channels that are pooled
    yield blocks[-1] if blocks else group[-1][0]


def _is_pointwise(module: nn.Module) -> bool:
    """Return whether a module's only convolution is 1x1."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return len(convolutions) == 1 and convolutions[0].kernel_size == (1, 1)


def _map(network: Any, seen: Recording, pooled: str | None) -> Roles:
    """Return the roles of the map that is pooled: read by the pooling, or with the pooled mean."""
    pools = [p for p, m in network.named_modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    taps = [f"{path}:in" for path in reversed(pools)]
    vector = None if pooled is None else seen.at(pooled)
    taps += [place.tap for place in seen.places if _has_mean(place.value, vector)]
    for place in seen.places:
        if taps and place.tap == taps[0]:
            tap = layout_at(network, seen, place, place.value)
            return {} if tap is None else with_tokens(network, tap)
    return {}


def _has_mean(value: Tensor, vector: Tensor | None) -> bool:
    if vector is None or value.dim() != 4 or value.shape[1] != vector.shape[-1]:
        return False
    return torch.allclose(value.mean((2, 3)), vector, rtol=1e-4, atol=1e-6)
