"""Places for nodes, as annotations say them: `network: NetworkNode`, `Mapping[str, NetworkNode]`.

`Annotated[T, kind]` is a place for a node of that kind; whether its callable gets the node or what
it builds is the callable's own affair.
"""

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from kd_core.config.kinds import MODULE, Kind
from kd_core.errors import UserError

NetworkNode = Annotated[Mapping[str, Any], MODULE]
"""A node of a network."""


class Places(NamedTuple):
    """What an annotation says about nodes: the kind of its own, the hints of what is inside."""

    kind: Kind | None = None
    of_key: Any = None
    of_item: Any = None


def inner_places(hint: Any) -> Places:
    """Return the places for nodes in what an annotation describes."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kinds = [one for one in inner[1:] if isinstance(one, Kind)]
        return Places(kinds[0]) if kinds else inner_places(inner[0])
    if origin in (Union, types.UnionType):
        arms = zip(*map(inner_places, inner), strict=True)
        return Places(*(next((part for part in parts if part is not None), None) for parts in arms))
    if origin in (dict, Mapping) and len(inner) == 2:
        return Places(of_key=_if_any(inner[1]))
    if origin in (list, Sequence):
        return Places(of_item=_if_any(inner[0]))
    return Places()


def require_holder(value: Any, where: str, places: Places) -> None:
    """Reject a single node, or a list for a dict, where an annotation has several nodes.

    Raises:
        UserError: If it is one of these.
    """
    holders = {
        "a dict of nodes by name": places.of_key,
        "a list of dicts with `type`": places.of_item,
    }
    wanted = [text for text, hint in holders.items() if hint is not None]
    if places.kind is not None or not wanted:
        return
    is_dict, is_list = isinstance(value, Mapping), isinstance(value, list | tuple)
    is_node = is_dict and "type" in value
    if is_node or (is_dict and places.of_key is None) or (is_list and places.of_item is None):
        raise UserError(f"{where}: wanted {' or '.join(wanted)}, got {value!r:.200}")


def _if_any(hint: Any) -> Any:
    return hint if inner_places(hint) != Places() else None
