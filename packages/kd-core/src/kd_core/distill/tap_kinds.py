"""What a criterion takes each of its taps as: maps, tokens, vectors or logits."""

import re
from collections.abc import Sequence

from torch import nn

from kd_core.criteria.criterion import Criterion, Side
from kd_core.networks.layouts import for_kind, has_layout
from kd_core.networks.roles import Taps, tap_list

Kinds = Criterion | type[Criterion]
_OF_MAPS = ("@stem", "@stages", "@map", "@preact", "@blocks", "@preact_blocks")
"""Roles of maps; without a layout their channels come first."""
_SAID = re.compile(r":(?:nhwc|nchw)\b")


def paths_for(criterion: Kinds, taps: Taps, model: nn.Module, side: Side = "student") -> list[str]:
    """Return paths in the place of roles, with the layout that a criterion takes.

    So `blocks.3:tokens` is a map for a criterion on maps (see `for_kind`), and the `@map` of a
    convolutional network is tokens, row by row, for a criterion on tokens.
    """
    found = [(path, text) for text in tap_list(taps) for path in tap_list(text, model)]
    kinds = criterion.kinds(len(found), side)
    if len(kinds) != len(found):  # refused later, with the shapes
        return [path for path, _ in found]
    return [
        for_kind(f"{path}:nchw" if _is_bare_map(path, text, kind) else path, kind)
        for (path, text), kind in zip(found, kinds, strict=True)
    ]


def maps_of(criterion: Kinds, paths: Sequence[str], side: Side = "student") -> list[str]:
    """Return those of a criterion's taps that it takes as maps, or may, or that are said to be."""
    kinds = criterion.kinds(len(paths), side)
    return [
        path
        for path, kind in zip(paths, kinds, strict=False)
        if kind in ("maps", "features") or _SAID.search(path)
    ]


def _is_bare_map(path: str, text: str, kind: str) -> bool:
    """Return whether a criterion on tokens is fed a map by its role, which says no layout."""
    return kind == "tokens" and text.partition("[")[0] in _OF_MAPS and not has_layout(path)
