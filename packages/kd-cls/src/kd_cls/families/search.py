"""Taps that give a certain map, in whatever layout a network has it."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from kd_core.errors import UserError
from kd_core.functional import tensors
from kd_core.networks.layouts import for_kind
from kd_core.networks.tap_paths import parse
from torch import Tensor, nn

from kd_cls.families.recording import Place, Recording

Roles = dict[str, tuple[str, ...]]
T = TypeVar("T")
_SWIN = (2, 4, 10, 12)  # blocks up to the end of each stage, in Swin-T
_PARTS = 4  # of a network of one resolution: as many as most others have stages


def tap_of(network: nn.Module, seen: Recording, wanted: Tensor, first: str) -> str | None:
    """Return the tap that gives a map, layout included, or None.

    Args:
        network: The network.
        seen: A pass of it.
        wanted: The map [1, C, H, W], in this pass.
        first: Path of the module that should give it; others are tried after it.
    """
    places = sorted(seen.places, key=lambda place: place.tap != first)  # else as executed
    found = (layout_at(network, seen, place, wanted) for place in places)
    return next((tap for tap in found if tap is not None), None)


def layout_at(network: nn.Module, seen: Recording, place: Place, wanted: Tensor) -> str | None:
    """Return the tap with the layout by which a place gives a map [1, C, H, W], or None."""
    value, (_, channels, height, width) = place.value, wanted.shape
    if value.shape == wanted.shape and _equal(value, wanted):
        return place.tap + seen.order
    if value.dim() == 4 and _equal(value.permute(0, 3, 1, 2), wanted):
        return f"{place.tap}:nhwc"
    prefix = value.shape[1] - height * width if value.dim() == 3 else -1
    if prefix < 0 or value.shape[2] != channels:
        return None
    if not _equal(value[:, prefix:].mT.unflatten(2, (height, width)), wanted):
        return None
    taps = (f"{place.tap}:tokens{options}" for options in _options(network, prefix, wanted))
    return next((tap for tap in taps if _equal(_laid_out(network, seen, value, tap), wanted)), None)


def _options(network: nn.Module, prefix: int, wanted: Tensor) -> Iterator[str]:
    """Yield what may be written of tokens: as little as possible, a grid only at last."""
    yield ""  # where the network itself says it
    for stride in strides(network):
        yield f"(prefix={prefix},stride={stride})"
    yield f"(prefix={prefix},grid={wanted.shape[2]}x{wanted.shape[3]})"


def _laid_out(network: nn.Module, seen: Recording, value: Tensor, tap: str) -> Tensor | None:
    """Return what a tap of tokens gives as a map, or None if it cannot be one."""
    try:
        layout = parse(for_kind(tap, "maps"), network).layout
        if layout is None:
            return value
        source = seen.image if layout.stride is not None else seen.at(layout.source or "")
        return layout.apply(value, None if source is None else (source.shape[2], source.shape[3]))
    except UserError:
        return None


def strides(network: Any) -> list[int]:
    """Return the strides that timm says of a network's levels, shallow to deep."""
    infos = getattr(network, "feature_info", None) or []
    return list(dict.fromkeys(info["reduction"] for info in getattr(infos, "info", infos)))


def with_tokens(network: Any, tap: str) -> Roles:
    """Return `map`, and `tokens` and `cls` where a network has them, from the tap of its map."""
    roles: Roles = {"map": (tap,)}
    if tap.endswith((":nhwc", ":nchw")) or ":tokens" in tap:
        roles["tokens"] = (for_kind(tap, "tokens"),)
    if getattr(network, "cls_token", None) is not None and tap.endswith(":tokens"):
        roles["cls"] = (tap.replace(":tokens", ":cls"),)
    return roles


def classifier_input(seen: Recording, classifiers: Sequence[str]) -> str | None:
    """Return the tap of the vector [N, D] that the first classifier with one gets, or None."""
    for path in classifiers:
        value = seen.at(f"{path}:in")
        if value is not None and value.dim() == 2:
            return f"{path}:in"
        if value is not None and value.dim() == 4 and sum(n > 1 for n in value.shape[1:]) == 1:
            return f"{path}:in:vector"
    return None


def pooled_of_logits(network: nn.Module, seen: Recording) -> str | None:
    """Return the tap of the vector [N, D] from which a network's logits are made, or None.

    It is the input of the linear layer that returns the (first) output of the network; else of the
    only one with as many outputs, such as one before a softmax.

    Args:
        network: The network.
        seen: A pass of it.
    """
    modules = list(network.named_modules())
    layers = {path for path, module in modules if isinstance(module, nn.Linear)}
    # Nothing is in the place of a classifier that was left out.
    nothing = {path for path, module in modules if isinstance(module, nn.Identity)}
    ran = [place for place in seen.places if place.tap in layers | nothing]
    for result in tensors(seen.result):
        made = [place.tap for place in ran if place.tensor is result and place.tap in layers]
        made = made or [place.tap for place in ran if place.tensor is result]
        like = [place.tap for place in ran if place.value.shape == result.shape]
        if made or len(like) == 1:
            return classifier_input(seen, made or like)
    return None


def quarters(levels: Sequence[T]) -> list[T]:
    """Return the ends of four equal parts of a sequence, or all of a shorter one."""
    count = min(_PARTS, len(levels))
    return [levels[-(-len(levels) * part // count) - 1] for part in range(1, count + 1)]


def of_blocks(blocks: Sequence[str | None]) -> Roles:
    """Return `blocks`, `stages` and `exits` of a network of one resolution, from all its blocks.

    Stages are its quarters. Exits are where OFA-KD has them: after blocks 2, 4, 10 and 12 of 12,
    as many blocks as Swin-T has up to the end of each stage. Of another number they lie in
    proportion. A role of which a block is None is left out.
    """
    depth = len(blocks)
    ends = [max(round(depth * end / _SWIN[-1]), place) for place, end in enumerate(_SWIN, 1)]
    exits = [blocks[end - 1] for end in ends] if depth > _PARTS else blocks
    return with_all(blocks=blocks, stages=quarters(blocks), exits=exits)


def with_all(**roles: Sequence[str | None]) -> Roles:
    """Return the roles that have taps, all of which are known."""
    known = {role: tuple(tap for tap in taps if tap is not None) for role, taps in roles.items()}
    return {role: taps for role, taps in known.items() if taps and len(taps) == len(roles[role])}


def _equal(value: Tensor | None, wanted: Tensor) -> bool:
    if value is None or value.shape != wanted.shape or value.dtype != wanted.dtype:
        return False
    return torch.allclose(value, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().amax()))
