"""Roles such as `@stages` and `@pooled`: names for tap paths that differ between networks."""

import re
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from kd_core.errors import UserError, nearest
from kd_core.networks.layouts import has_layout, in_layout

Taps = str | Sequence[str]
Roles = Mapping[str, Taps]

_GRAMMAR = re.compile(
    r"@(?P<role>\w+)(?:\[(?P<place>-?\d*(?::-?\d*){0,2})\])?(?::(?P<layout>tokens|map|cls|mean))?"
)


def roles_of(model: nn.Module) -> Roles:
    """Return the tap paths by role of a task, or of a model that is its own task."""
    roles = getattr(model, "roles", {})
    return roles if isinstance(roles, Mapping) else {}


def tap_list(taps: Taps, model: nn.Module | None = None) -> list[str]:
    """Return the taps as a list of paths.

    A method names taps by role, so it fits any pair: `@stages` (the ends of all stages, without
    the stem), `@stages[-1]`, `@stages[:2]`. A role is replaced by its paths, in order, in the
    layout that is written behind it, as in `@map:mean`. `@logits` is the network's output where the
    model does not say otherwise, `@tokens` the positions of `@map` where there is no such role.

    Args:
        taps: One text or several.
        model: Has the roles; without it, no role is replaced.

    Raises:
        UserError: If the model has no such role, or fewer taps in it.
    """
    texts = [taps] if isinstance(taps, str) else list(taps)
    if model is None:
        return texts
    return [path for text in texts for path in _paths(text, model)]


def _paths(text: str, model: nn.Module) -> Sequence[str]:
    if not text.startswith("@"):
        return (text,)
    match, roles = _GRAMMAR.fullmatch(text), {"logits": "output", **roles_of(model)}
    if not roles.get("tokens") and roles.get("map"):  # the positions of a convolutional network's
        maps = tap_list(roles["map"])
        roles["tokens"] = [path if has_layout(path) else f"{path}:nchw" for path in maps]
    if match is None:
        raise UserError(
            f"tap {text!r}: write a role such as @stages, @stages[-1] or @stages[1:], and a layout "
            "after it if wanted: :tokens, :map, :cls or :mean, as in @map:mean"
        )
    if not roles.get(match["role"]):
        hint = nearest(match["role"], [name for name, paths in roles.items() if paths])
        advice: Callable[[str], str] = getattr(model, "without_role", lambda role: "")
        way = advice(match["role"]) or (
            "name modules instead (--list-taps), or give its node `roles`"
        )
        raise UserError(f"tap {text!r}: the network has no such role{hint}; {way}")
    paths = _chosen(text, match["place"], tuple(tap_list(roles[match["role"]])))
    layout = match["layout"]
    return paths if layout is None else [in_layout(path, layout) for path in paths]


def _chosen(text: str, place: str | None, paths: Sequence[str]) -> Sequence[str]:
    """Return the paths at an index or in a slice, as it is written; without one all."""
    if place is None:
        return paths
    bounds = [int(bound) if bound else None for bound in place.split(":")]
    if len(bounds) > 1:
        return paths[slice(*bounds)]
    if bounds[0] is None or not -len(paths) <= bounds[0] < len(paths):
        raise UserError(f"tap {text!r}: there are {len(paths)} of them: {', '.join(paths)}")
    return (paths[bounds[0]],)
