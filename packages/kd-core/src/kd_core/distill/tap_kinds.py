"""What a criterion takes each of its taps as: maps, tokens, vectors or logits."""

import re
from collections.abc import Sequence

from torch import nn

from kd_core.criteria.criterion import Criterion
from kd_core.networks.layouts import for_kind
from kd_core.networks.roles import Taps, tap_list

Kinds = Criterion | type[Criterion]

_ROLE_OF_MAPS = re.compile(r"@(stem|stages|preact|blocks|preact_blocks|map)\b")
_LAYOUT = re.compile(r":(nhwc|nchw|tokens|map|cls|vector)\b")


def paths_for(criterion: Kinds, taps: Taps, model: nn.Module) -> list[str]:
    """Return paths in the place of roles, with the layout that a criterion takes.

    So `blocks.3:tokens` is a map for a criterion on maps, and `@stages` of a convolutional network
    are tokens for a criterion on tokens; see `for_kind`.
    """
    texts = [(path, text) for text in tap_list(taps) for path in tap_list(text, model)]
    paths = [path for path, _ in texts]
    kinds = criterion.kinds(len(paths))
    if len(kinds) != len(paths):  # refused later, with the shapes
        return paths
    return [_for_kind(*text, kind) for text, kind in zip(texts, kinds, strict=True)]


def maps_of(criterion: Kinds, paths: Sequence[str]) -> list[str]:
    """Return those of a criterion's taps that it takes as maps, or as tokens made of maps."""
    kinds = criterion.kinds(len(paths))
    return [
        path
        for path, kind in zip(paths, kinds, strict=False)
        if kind == "maps" or path.endswith((":nchw:tokens", ":nhwc:tokens"))
    ]


def _for_kind(path: str, text: str, kind: str) -> str:
    """Return a path for what is written `text`; a role says that it is a map, where one is."""
    if kind == "tokens" and _ROLE_OF_MAPS.match(text) and not _LAYOUT.search(path):
        path = f"{path}:nchw"
    return for_kind(path, kind)
