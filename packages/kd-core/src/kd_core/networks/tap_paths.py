"""Parse the text of a tap: module, input or output, call, entry, layout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from kd_core.errors import UserError, nearest
from kd_core.networks.layouts import Layout, parse_layout

_GRAMMAR = re.compile(
    r"(?P<path>[^\[\]:@]+)(?P<input>:in\b)?(?P<every>\[\*\])?(?:\[(?P<key>[^\[\]*]+)\])?"
    r"(?P<layout>:(?:nhwc|nchw|tokens|map|cls|vector)\b.*)?"
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
        if self.key is None:
            return value
        index = int(self.key) if re.fullmatch(r"-?\d+", self.key) else None
        if isinstance(value, Mapping):
            key = self.key if self.key in value else index
            if key in value:
                return value[key]
            raise UserError(f"tap {self.name!r}: no such key{nearest(self.key, map(str, value))}")
        if not isinstance(value, tuple | list):
            raise UserError(f"tap {self.name!r}: a {type(value).__name__} has no entries; no [key]")
        if index is None or not -len(value) <= index < len(value):
            raise UserError(f"tap {self.name!r}: no such entry in a tuple of {len(value)}")
        return value[index]


def parse(name: str, network: nn.Module) -> TapPath:
    """Parse a tap of a network.

    Raises:
        UserError: If the text is not a tap, or the network has no such module.
    """
    match = _GRAMMAR.fullmatch(name)
    if match is None:
        raise UserError(
            f"tap {name!r}: write path, path:in, path[key], path[*] or output, and a layout after "
            "it where one is needed (:nhwc, :nchw, :tokens, :map, :cls, :vector)"
        )
    path, is_input = match["path"], bool(match["input"])
    every_call, key = bool(match["every"]), match["key"]
    if path == "output":
        layout = parse_layout(match["layout"] or "", name, network, "")
        return TapPath(name, "", is_input, every_call, key, layout)
    modules = [module for module, _ in network.named_modules(remove_duplicate=False) if module]
    if path not in modules:
        raise UserError(
            f"tap {name!r}: {type(network).__name__} has no module {path!r}"
            f"{nearest(path, [*modules, 'output'])}"
        )
    layout = parse_layout(match["layout"] or "", name, network, path)
    return TapPath(name, path, is_input, every_call, key, layout)
