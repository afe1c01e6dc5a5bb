"""Parse the text of a tap: module, input or output, call, entry, layout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import nn

from kd_core.errors import UserError, nearest
from kd_core.networks.layouts import LAYOUTS, Layout, parse_layout

_GRAMMAR = re.compile(
    r"(?P<path>[^\[\]:@]+)(?P<input>:in\b)?(?P<every>\[\*\])?(?:\[(?P<key>[^\[\]*]+)\])?"
    rf"(?P<layout>:(?:{'|'.join(LAYOUTS)})\b.*)?"
)


@dataclass(frozen=True)
class TapPath:
    """A parsed tap: the module to hook, and which value to keep."""

    name: str
    path: str  # "" is the network itself
    input: bool
    every_call: bool
    key: str | None  # of the module's output; with every call: which call
    layout: Layout | None = None

    @property
    def hooked(self) -> str:
        """The module's path, with `:in` where its input is read: the tap without what follows."""
        return (self.path or "output") + (":in" if self.input else "")

    @property
    def plain(self) -> str:
        """The tap without its layout: what the module itself gives."""
        every, key = "[*]" if self.every_call else "", f"[{self.key}]" if self.key else ""
        return f"{self.hooked}{every}{key}"

    def select(self, value: Any) -> Any:
        """Return the entry of a value that the tap names; the value itself if it names none."""
        return value if self.key is None else entry(value, self.key, f"tap {self.name!r}")


def entries(value: Any) -> dict[str, Any]:
    """Return what a tuple, dict or dataclass holds, by name or by number; else nothing."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))
        return {str(name): item for name, item in zip(names, value, strict=True)}
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    return {}


def entry(value: Any, key: str, what: str) -> Any:
    """Return one entry of a tuple, dict or dataclass, by its name or its number.

    Args:
        value: The tuple, dict or dataclass.
        key: Name, or number such as "-1".
        what: Who asks, for messages.

    Raises:
        UserError: If there is no such entry.
    """
    named = entries(value)
    if key in named:
        return named[key]
    if isinstance(value, tuple | list):
        index = int(key) if re.fullmatch(r"-?\d+", key) else None
        if index is not None and -len(value) <= index < len(value):
            return value[index]
        raise UserError(f"{what}: no such entry in a tuple of {len(value)}{_names(value, key)}")
    if isinstance(value, Mapping) or named:
        raise UserError(f"{what}: no such key{nearest(key, named)}")
    raise UserError(f"{what}: a {type(value).__name__} has no entries; no [key]")


def _names(value: Any, key: str) -> str:
    return nearest(key, value._fields) if hasattr(value, "_fields") else ""


def _has_module(network: nn.Module, path: str) -> bool:
    """Return whether a network has a module of this name below it."""
    module: nn.Module | None = network
    for part in path.split("."):
        module = module._modules.get(part) if module is not None else None
    return module is not None


def parse(name: str, network: nn.Module) -> TapPath:
    """Parse a tap of a network.

    Raises:
        UserError: If the text is not a tap, or the network has no such module.
    """
    match = _GRAMMAR.fullmatch(name)
    if match is None:
        raise UserError(
            f"tap {name!r}: write path, path:in, path[key], path[*] or output, and a layout after "
            "it where one is needed (:nhwc, :nchw, :tokens, :map, :cls, :mean, :vector)"
        )
    path, is_input = match["path"], bool(match["input"])
    every_call, key = bool(match["every"]), match["key"]
    if path == "output":
        layout = parse_layout(match["layout"] or "", name, network, "")
        return TapPath(name, "", is_input, every_call, key, layout)
    if not _has_module(network, path):
        modules = [module for module, _ in network.named_modules(remove_duplicate=False) if module]
        raise UserError(
            f"tap {name!r}: {type(network).__name__} has no module {path!r}"
            f"{nearest(path, [*modules, 'output'])}"
        )
    layout = parse_layout(match["layout"] or "", name, network, path)
    return TapPath(name, path, is_input, every_call, key, layout)
