"""Roles of timm's networks, found by what timm says of them and proved in a pass."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from kd_core.networks.probe import untouched
from torch import Tensor, nn

from kd_cls.families.recording import Recording, distinct, record
from kd_cls.families.search import (
    Roles,
    classifier_input,
    layout_at,
    of_blocks,
    tap_of,
    with_all,
    with_tokens,
)

_FIRST_STRIDE = 4  # of the first stage of most networks: what comes before is the stem


def is_of_timm(network: Any) -> bool:
    """Return whether a network has timm's interface of classifiers."""
    names = ("feature_info", "forward_features", "forward_head", "get_classifier")
    return all(hasattr(network, name) for name in names)


def timm_roles(network: Any, sizes: Sequence[tuple[int, int]] = ()) -> Roles:
    """Return `stages`, `map`, `tokens`, `cls` and `pooled` of a network of timm.

    `stages` are the ends of those from stride 4 on; of a network of one resolution (ViT), the
    blocks at the ends of its four quarters, besides `blocks` and `exits` (see `of_blocks`). timm's
    `forward_intermediates` gives their maps [N, C, H, W], and a tap is taken if it gives the same
    numbers, in whatever layout; a network without that function is believed where shapes and
    strides are as its `feature_info` says. `map` is what `forward_features` returns, `pooled` what
    the classifier of `get_classifier` gets. What cannot be found so is left out.

    Args:
        network: Its weights, modes and generators are as before afterwards.
        sizes: Height and width of images that it might take.
    """

    def run(image: Tensor) -> Any:
        features = network.forward_features(image)
        network.forward_head(features)
        return features

    with distinct(network):
        seen = record(network, run, sizes)
        return {} if seen is None else _roles(network, seen)


def _roles(network: Any, seen: Recording) -> Roles:
    infos = _infos(network)
    levels = _levels(network, seen, infos)
    found = [tap_of(network, seen, level, str(info["module"])) for level, info in levels]
    isotropic = len({level.shape[2:] for level, _ in levels}) == 1 < len(levels)
    roles = of_blocks(found) if isotropic else with_all(stages=found)
    roles |= _last(network, seen, [level for level, _ in levels[-1:]])
    pooled = classifier_input(seen, _classifiers(network))
    return roles if pooled is None else {**roles, "pooled": (pooled,)}


def _infos(network: Any) -> list[dict[str, Any]]:
    infos = network.feature_info
    return list(getattr(infos, "info", infos) or [])


def _levels(
    network: Any, seen: Recording, infos: list[dict[str, Any]]
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return the map [1, C, H, W] at the end of every stage, with what timm says of it.

    Of a network of one resolution: at the end of every block.
    """
    maps: list[Tensor | None] = [*_intermediates(network, seen.image)]
    if len(maps) != len(infos):
        maps = [_map_at(seen, info) for info in infos]
    levels = [(m, info) for m, info in zip(maps, infos, strict=True) if m is not None]
    if len(levels) < len(infos):
        return []
    sizes = [tuple(level.shape[2:]) for level, _ in levels]
    if len(set(sizes)) == 1:
        return levels
    last = {size: level for size, level in zip(sizes, levels, strict=True)}
    height = seen.image.shape[2]
    return [level for (h, _), level in last.items() if height >= (_FIRST_STRIDE - 0.5) * h]


def _intermediates(network: Any, image: Tensor, *, norm: bool = False) -> list[Tensor]:
    """Return timm's own maps of all its levels; none if it cannot give them."""
    with suppress(Exception), untouched(network):
        found = network.forward_intermediates(
            image, norm=norm, output_fmt="NCHW", intermediates_only=True
        )
        if all(isinstance(value, Tensor) and value.dim() == 4 for value in found):
            return list(found)
    return []


def _map_at(seen: Recording, info: dict[str, Any]) -> Tensor | None:
    """Return the map of a module if it has the channels and the stride that timm says."""
    value = seen.at(str(info["module"]))
    if value is None or value.dim() != 4 or value.shape[1] != info["num_chs"]:
        return None
    pairs = zip(seen.image.shape[2:], value.shape[2:], strict=True)
    fits = all(abs(size / info["reduction"] - found) < 2 for size, found in pairs)  # borders
    return value if fits and value.shape[1] not in value.shape[2:] else None


def _last(network: Any, seen: Recording, levels: Sequence[Tensor]) -> Roles:
    """Return `map`, `tokens` and `cls`: what `forward_features` returns.

    Args:
        network: The network.
        seen: A pass of it.
        levels: The last map, if it is known; tokens are believed only if they are equal to it, or
            to it after the last normalisation.
    """
    features = seen.result
    if not isinstance(features, Tensor):  # such as a class token beside the patches
        return {}
    same = [p for p in seen.places if p.value.shape == features.shape]
    equal = [p for p in same if torch.equal(p.value, features)]
    if not equal:
        return {}
    # The outermost module, for its name says most; an output rather than an input.
    own = [p for p in equal if p.tensor is features] or equal
    place = min(own, key=lambda place: (place.tap.endswith(":in"), place.tap.count(".")))
    wanted = [*_intermediates(network, seen.image, norm=True)[-1:], *levels]
    wanted += _as_map(network, features, seen.image)
    found = (layout_at(network, seen, place, level) for level in wanted)
    tap = next((tap for tap in found if tap is not None), None)
    return {} if tap is None else with_tokens(network, tap)


def _as_map(network: Any, features: Tensor, image: Tensor) -> list[Tensor]:
    """Return features of four dimensions as a map [1, C, H, W], if its layout is certain."""
    if features.dim() != 4:
        return []
    ratio = image.shape[3] / image.shape[2]
    maps = [
        maps
        for maps in (features, features.permute(0, 3, 1, 2))
        if maps.shape[1] == getattr(network, "num_features", None)
        and abs(maps.shape[2] * ratio - maps.shape[3]) < 2  # borders
    ]
    return maps if len(maps) == 1 else []


def _classifiers(network: Any) -> list[str]:
    """Return the paths of the classifiers, the first of a distilled network before the other."""
    names = {id(module): name for name, module in network.named_modules(remove_duplicate=False)}
    found = network.get_classifier()
    found = found if isinstance(found, tuple | list) else [found]
    paths = [names[id(module)] for module in found if id(module) in names]
    return [path for first in paths for path in _called(network, first)]


def _called(network: nn.Module, path: str) -> list[str]:
    """Return a classifier's path, then its last linear layer: a head may pool a map itself."""
    module = network.get_submodule(path)
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        inner = [f"{path}.{name}" for name, _ in module.named_children()]
        return inner if len(inner) == 1 else []  # of several, none gets all that the logits need
    linear = [name for name, m in module.named_modules() if name and isinstance(m, nn.Linear)]
    return [path, *(f"{path}.{name}" for name in linear[-1:])]
