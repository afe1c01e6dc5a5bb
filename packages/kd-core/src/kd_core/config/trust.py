"""Networks that a weights file describes: built only if known, or trusted by name.

A finished student's file names its network by import path. The file may come from anybody, so
nothing in it is imported, called or read, unless it is a network of a known package, or the user
named it: with `--trust`, or in the config of the run.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from kd_core.config.build import build_network
from kd_core.config.kinds import is_subclass, module_of, require_factory
from kd_core.config.locate import locate
from kd_core.config.parameters import parameters_of
from kd_core.config.trusted import trusted_names
from kd_core.errors import UserError, located

NO_WEIGHTS = {
    "pretrained": False,
    "pretrained_backbone": False,
    "weights": None,
    "weights_backbone": None,
}
"""Arguments that keep model zoos from downloading weights."""

_OF_FILES = re.compile(r"pretrained_\w+|checkpoint\w*|(\w+_)?(path|file|dir|url)|hf_\w+|\w*hub\w*")
_TAP = "in|tokens|map|cls|vector|mean|nhwc|nchw"  # `layer4:in` and `norm:cls` are taps
_PLACE = re.compile(rf"[/\\\0~]|^\s*[\w+-]+:(?!(?:{_TAP})\b)")
_NO_FILES = "a network that a file describes reads no other file"
_LARGEST = 4096  # for numbers that are not sizes of tensors


@dataclass(frozen=True)
class Known:
    """What a file may name without `--trust`.

    Args:
        prefixes: Beginnings of import paths, with their last dot. All that importing such a path
            runs must be harmless.
        is_network: Returns whether an object found there is a network, or makes one.
    """

    prefixes: tuple[str, ...]
    is_network: Callable[[Any, Mapping[str, Any]], bool]


def known_modules(*packages: str) -> Known:
    """Return the module classes that these packages define, as known."""

    def is_network(found: Any, node: Mapping[str, Any]) -> bool:
        return is_subclass(found, nn.Module) and is_defined_in(found, packages)

    return Known(tuple(f"{package}." for package in packages), is_network)


DEPLOYED = known_modules("kd_core.criteria", "torch.nn")
"""Modules that criteria add to a student, and layers of PyTorch."""


def is_defined_in(found: Any, packages: Sequence[str]) -> bool:
    """Return whether a function or class is defined in one of the packages, or inside it."""
    return f"{module_of(found)}.".startswith(tuple(f"{package}." for package in packages))


def names_in(config: Any) -> set[str]:
    """Return the import paths that a config names as `type`, at any depth."""
    if isinstance(config, Mapping):
        own = {config["type"]} if isinstance(config.get("type"), str) else set()
        return own.union(*map(names_in, config.values()))
    return set().union(*map(names_in, config)) if isinstance(config, list | tuple) else set()


def find(path: Any, where: str, known: Sequence[Known], node: Mapping[str, Any]) -> Any:
    """Return the object that a file names, if it is known or trusted; else import nothing.

    Args:
        path: The import path in the file.
        where: Its place, for messages.
        known: What needs no trust.
        node: The node that names it.

    Raises:
        UserError: If it is neither, or cannot be found.
    """
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"{where}: {path!r:.80} is not an import path such as 'torch.nn.Linear'")
    if path in trusted_names():
        with located(where):
            found = locate(path)
        require_factory(found, where)
        return found
    if path.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{where}: {path} is Python's own, and a file cannot make it run")
    private = any(part.startswith("_") for part in path.split("."))
    for one in known:
        if path.startswith(one.prefixes) and not private:
            with located(where):
                found = locate(path)
            if one.is_network(found, node):
                return found
    raise UserError(
        f"{where}: {path} is not known here, so it is not run just because a file names it; "
        f"if you trust the author of the file, and know what {path} does, add --trust {path}"
    )


def check_types(value: Any, where: str, known: Sequence[Known]) -> None:
    """Reject a value that names anything neither known nor trusted, at any depth; build nothing.

    Args:
        value: Of the file: a node, or lists and dicts that contain nodes.
        where: Its place, for messages.
        known: What needs no trust.
    """
    if isinstance(value, Mapping):
        if "type" in value:
            find(value["type"], where, known, value)
        for key, item in value.items():
            check_types(item, f"{where}.{key}", known)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_types(item, f"{where}.{index}", known)


def build_from_file(
    node: Any, where: str, known: Sequence[Known], *, largest: int = 0, **provided: Any
) -> nn.Module:
    """Build the network that a file describes; see `kd_core.config.build.build`.

    Args:
        node: `type` and arguments from the file, as JSON types.
        where: Its place, for messages.
        known: What needs no trust, besides `DEPLOYED`.
        largest: Number of elements of the file's largest tensor; no argument may be larger.
        provided: Further arguments.

    Raises:
        UserError: If the node names something neither known nor trusted, an argument names a file
            or an address, or the network cannot be built.
    """
    if not isinstance(node, Mapping) or "type" not in node:
        raise UserError(f"{where}: wanted a dict with `type`, got {node!r:.80}")
    try:
        judged = _judged(node, where, (*known, DEPLOYED), max(largest, _LARGEST))
        return build_network(judged, where, **provided)
    except UserError:
        raise
    except Exception as error:  # wrong arguments may raise anything
        reason = " ".join(str(error).split())
        raise UserError(
            f"{where}: cannot be built ({type(error).__name__}: {reason:.200})"
        ) from error


def _judged(value: Any, where: str, known: Sequence[Known], largest: int) -> Any:
    """Return a value of a file with all types located; reject values that a file may not have."""
    if isinstance(value, Mapping):
        node = {}
        if "type" in value:
            found = find(value["type"], f"{where}.type", known, value)
            names = {*parameters_of(found).names, *value}
            node = {name: no for name, no in NO_WEIGHTS.items() if name in names} | {"type": found}
        inside = {
            key: _judged(_not_a_file(key, item, where), f"{where}.{key}", known, largest)
            for key, item in value.items()
            if key not in ("type", *NO_WEIGHTS)
        }
        return node | inside
    if isinstance(value, list):
        return [_judged(item, where, known, largest) for item in value]
    if isinstance(value, str) and (_PLACE.search(value) or os.path.isfile(value)):
        raise UserError(f"{where}: {value!r:.80} may be a file or an address; {_NO_FILES}")
    if isinstance(value, int | float) and not abs(value) <= largest:
        raise UserError(f"{where}: {value!r:.40} is larger than all tensors of the file")
    return value


def _not_a_file(key: str, value: Any, where: str) -> Any:
    """Return the value of an argument; reject it if the argument's name means a file."""
    if _OF_FILES.fullmatch(key) and value and not isinstance(value, int | float):
        raise UserError(f"{where}.{key}: {value!r:.80} may be a file or an address; {_NO_FILES}")
    return value
