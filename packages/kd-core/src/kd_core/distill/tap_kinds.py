"""What a criterion takes each of its taps as: maps, tokens, vectors or logits."""

import re
from collections.abc import Sequence

from torch import nn

from kd_core.criteria.criterion import Criterion, Side
from kd_core.networks.layouts import for_kind
from kd_core.networks.roles import Taps, tap_list

Kinds = Criterion | type[Criterion]

_SAID = re.compile(r":(?:nhwc|nchw)\b")


def paths_for(criterion: Kinds, taps: Taps, model: nn.Module, side: Side = "student") -> list[str]:
    """Return paths in the place of roles, with the layout that a criterion takes.

    So `blocks.3:tokens` is a map for a criterion on maps; see `for_kind`.
    """
    paths = tap_list(taps, model)
    kinds = criterion.kinds(len(paths), side)
    if len(kinds) != len(paths):  # refused later, with the shapes
        return paths
    return [for_kind(path, kind) for path, kind in zip(paths, kinds, strict=True)]


def maps_of(criterion: Kinds, paths: Sequence[str], side: Side = "student") -> list[str]:
    """Return those of a criterion's taps that it takes as maps, or may, or that are said to be."""
    kinds = criterion.kinds(len(paths), side)
    return [
        path
        for path, kind in zip(paths, kinds, strict=False)
        if kind in ("maps", "features") or _SAID.search(path)
    ]
