"""Nodes of a config: checked calls. Checking is parsing, and what was parsed is called later."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, cast

from kd_core.config.kinds import MODULE, Kind, name_of, require_factory
from kd_core.config.locate import locate
from kd_core.config.parameters import parameters_of
from kd_core.config.places import inner_places, require_holder
from kd_core.config.short_names import expanded
from kd_core.config.values import annotations_of, check_values
from kd_core.errors import UserError, located, nearest
from kd_core.runtime.failures import explain, first_line
from kd_core.runtime.user_code import pass_signals

_OF_ARGUMENTS = (
    *(TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AssertionError),
    AttributeError,  # of a value of another type
    OSError,  # a file, or a failed download
    SystemExit,  # which is not to end the tool in silence
)
"""What a callable may raise for arguments that it cannot take."""


@dataclass(frozen=True, eq=False, repr=False)
class Node(Mapping[str, Any]):
    """A checked call: a callable and its arguments, nested nodes among them.

    To read, it is the mapping that was written in the config.

    Args:
        function: What will be called.
        arguments: Its arguments by name; a `Node` where the config has one.
        where: Its place in the config, for messages.
        type: The import path, as it was written; None where the place decides what is called.
    """

    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    type: Any = None

    def __getitem__(self, key: str) -> Any:
        """Return what was written under a key."""
        return self.type if key == "type" and self.type is not None else self.arguments[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys that were written."""
        return iter([*(["type"] if self.type is not None else []), *self.arguments])

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.arguments) + (self.type is not None)

    def __repr__(self) -> str:
        """Show the node as it was written."""
        return repr(self.plain())

    def changed(self, **arguments: Any) -> Self:
        """Return the node with other arguments, which are not checked."""
        return replace(self, arguments={**self.arguments, **arguments})

    def plain(self) -> dict[str, Any]:
        """Return the node as it was written: dicts, lists, tuples and what is in them."""
        return cast(dict[str, Any], plain(self))

    def build(self, **provided: Any) -> Any:
        """Call the callable, building nested nodes first.

        Args:
            provided: Arguments at hand. This node and every nested one receives those that it does
                not give itself and that its callable names as parameters; through **kwargs only
                `num_classes` is passed.

        Raises:
            UserError: If the callable raises what a wrong argument can make it raise.
        """
        parameters = parameters_of(self.function)
        offered = {name: provided[name] for name in provided if parameters.takes_offer(name)}
        given = {key: _built(value, provided) for key, value in self.arguments.items()}
        try:
            return self.function(**(offered | given))
        except UserError as error:
            if not self.where or str(error).startswith((f"{self.where}:", f"{self.where}.")):
                raise
            raise UserError(f"{self.where}: {error}") from error
        except _OF_ARGUMENTS as error:
            pass_signals(error)
            if known := explain(error):  # lack of memory, no network
                raise type(known)(f"{_prefix(self.where)}{known}") from error
            reason = first_line(error)
            if not reason or isinstance(error, SystemExit | LookupError):  # text says too little
                reason = f"{type(error).__name__} {reason}".strip()
            raise UserError(f"{_prefix(self.where)}{name_of(self.function)}: {reason}") from error


def parse(
    value: Any, where: str = "", *, kind: Kind | None = None, provided: Collection[str] = ()
) -> Node:
    """Return a config's node as a checked call; nothing is called.

    A dict with `type` is a node in any place: as an argument or inside dicts, lists and
    tuples. For a node that comes from a file of weights this is not enough: see
    `kd_core.config.trust`.

    Args:
        value: A dict of `type` (an import path or a callable) and arguments, or a `Node`.
        where: Path of the node in the config, for messages.
        kind: What the node itself must name; nested ones may be anything but Python's own.
        provided: Names of the arguments that `Node.build` will be given.

    Raises:
        UserError: If the type cannot be located or names something else, or an argument is
            unknown, missing or outside its range.
    """
    if isinstance(value, Node) and value.type is not None:
        if kind is not None:
            kind.require(value.function, join(where, "type"))
        return value
    value = expanded(value, where, network=kind is MODULE)
    function = located_type(value, where, kind)
    arguments = {key: item for key, item in value.items() if key != "type"}
    call = parse_call(function, arguments, where, provided=provided)
    return replace(call, type=value["type"])


def located_type(node: Any, where: str, kind: Kind | None = None) -> Callable[..., Any]:
    """Return what the `type` of a node names, which may be called in this place."""
    if not isinstance(node, Mapping) or "type" not in node:
        path = "an import path" if kind is None else f"the import path of {kind.what}"
        came = dict(node) if isinstance(node, Mapping) else node
        raise UserError(f"{_prefix(where)}wanted a dict with `type`, {path}, got {came!r:.200}")
    found, place = node["type"], join(where, "type")
    if isinstance(found, str):
        with located(place):
            found = locate(found)
    require_factory(found, place)
    if kind is not None:
        kind.require(found, place)
    return cast(Callable[..., Any], found)


def parse_call(
    function: Callable[..., Any], value: Any, where: str = "", *, provided: Collection[str] = ()
) -> Node:
    """Return the arguments of a callable that the place decides, as a checked call.

    Arguments that the callable annotates as nodes of a kind (see `kd_core.config.places`) must be
    such nodes. See `parse` for the rest.
    """
    value = mapping(value, where)
    _check_names(function, value, where, provided)
    hints = annotations_of(function)
    arguments = {
        key: _parsed(item, join(where, key), provided, hints.get(key))
        for key, item in value.items()
    }
    check_values(function, arguments, partial(join, where))
    return Node(function, arguments, where)


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return a value that must be a dict.

    Raises:
        UserError: If it is not.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{_prefix(where)}wanted a dict, got {value!r:.200}")
    return value


def plain(value: Any) -> Any:
    """Return a value with all nodes inside it as they were written."""
    return map_leaves(value, lambda leaf: leaf, as_written=True)


def map_leaves(value: Any, change: Callable[[Any], Any], *, as_written: bool = False) -> Any:
    """Return a nested value with every leaf changed; nodes stay nodes unless `as_written`."""
    again = partial(map_leaves, change=change, as_written=as_written)
    if isinstance(value, Node) and not as_written:
        return replace(value, arguments=again(dict(value.arguments)))
    if isinstance(value, Mapping):
        return {key: item if key == "type" else again(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(again, value))
    return change(value)


def join(where: str, key: Any) -> str:
    """Return the place of a key inside another place."""
    return f"{where}.{key}" if where else str(key)


def _parsed(value: Any, where: str, provided: Collection[str], hint: Any) -> Any:
    """Return an argument with all nodes inside it parsed."""
    places = inner_places(hint)
    require_holder(value, where, places)
    kind, of_key, of_item = places
    if (isinstance(value, Mapping) and "type" in value) or (kind is not None and value is not None):
        return parse(value, where, kind=kind, provided=provided)
    if isinstance(value, Mapping):
        return {k: _parsed(v, join(where, k), provided, of_key) for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = (_parsed(v, join(where, i), provided, of_item) for i, v in enumerate(value))
        return type(value)(items)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: wanted a finite number, got {value}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{where}: wanted a number of at most 64 bits, got {value!r:.40}")
    return value


def _built(value: Any, provided: Mapping[str, Any]) -> Any:
    if isinstance(value, Node):
        return value.build(**provided)
    if isinstance(value, Mapping):
        return {key: _built(item, provided) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_built(item, provided) for item in value)
    return value


def _check_names(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    where: str,
    provided: Collection[str],
) -> None:
    """Reject an argument that a callable does not have, and one that it lacks."""
    parameters = parameters_of(function)
    for key in arguments:
        if key not in parameters.names and not (parameters.open and isinstance(key, str)):
            raise UserError(
                f"{_prefix(where)}{name_of(function)} has no parameter {key!r}"
                f"{nearest(str(key), parameters.names)}"
            )
    missing = [name for name in parameters.required if name not in {*arguments, *provided}]
    if missing:
        raise UserError(
            f"{_prefix(where)}{name_of(function)} needs {', '.join(map(repr, missing))}"
            f"; set {join(where, missing[0])}"
        )


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""
