"""Which kind of object a config node must name; checked before the object is called."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from types import ModuleType
from typing import Any

from torch import nn

from kd_core.errors import UserError


@dataclass(frozen=True)
class Kind:
    """The kind of object that one place of a config needs.

    Args:
        what: Its name, with article: `a criterion`.
        fits: Takes the object that the `type` of a node names; returns whether it may be called.
        wanted: How such an object is written.
    """

    what: str
    fits: Callable[[Any], bool]
    wanted: str

    def require(self, found: Any, where: str) -> None:
        """Reject an object of another kind.

        Raises:
            UserError: If it is of another kind; nothing is called.
        """
        if not self.fits(found):
            raise UserError(
                f"{where}: {name_of(found)} is not {self.what}, so it is not called; "
                f"wanted {self.wanted}"
            )


def subclass_of(what: str, parent: type) -> Kind:
    """Return the kind of the subclasses of a class, and of nothing else."""
    wanted = f"a subclass of {name_of(parent)}"
    return Kind(what, lambda found: is_subclass(found, parent), wanted)


def require_factory(found: Any, where: str) -> None:
    """Reject objects that cannot be called, and those of Python itself.

    The object counts, not its path: `torch.os.system` is Python's too.

    Raises:
        UserError: If it is such an object.
    """
    if not callable(found):
        raise UserError(f"{where}: {found!r} cannot be called")
    if is_of_python(found):
        raise UserError(
            f"{where}: {name_of(found)} is Python's own and does not make a part of a run; "
            "it is not called"
        )


def is_of_python(found: Any) -> bool:
    """Return whether an object is defined in the standard library or built into Python."""
    return module_of(found).partition(".")[0] in sys.stdlib_module_names


def module_of(found: Any) -> str:
    """Return the module in which a function or class is defined, whatever its path."""
    while isinstance(found, functools.partial):
        found = found.func
    module = getattr(found, "__module__", None)
    if isinstance(module, str):
        return module
    # Written in C: a function of a module, or a method of a class or of an object.
    owner = getattr(found, "__self__", None) or getattr(found, "__objclass__", None) or found
    if isinstance(owner, ModuleType):
        return owner.__name__
    return owner.__module__ if inspect.isclass(owner) else type(owner).__module__


def name_of(found: Any) -> str:
    """Return the full name of a function or class, from the module that defines it."""
    name = getattr(found, "__qualname__", "")
    return f"{module_of(found)}.{name}" if name else repr(found)


def is_subclass(found: Any, parent: type) -> bool:
    """Return whether something is a class, and a subclass of this one."""
    return inspect.isclass(found) and issubclass(found, parent)


def returned(function: Any) -> Any:
    """Return the annotated return type of a function; None if there is none or it is unknown."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    annotation = getattr(function, "__annotations__", {}).get("return")
    if not isinstance(annotation, str):
        return annotation
    first, *rest = annotation.split(".")  # a name, as `from __future__ import annotations` has it
    found = getattr(function, "__globals__", {}).get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found


def makes(found: Any, parent: type) -> bool:
    """Return whether something is a subclass, or a function annotated to return one."""
    return is_subclass(found, parent) or is_subclass(returned(found), parent)


def makes_one_with(found: Any, names: Iterable[str]) -> bool:
    """Return whether something is a class with these attributes, or annotated to return one."""
    made = found if inspect.isclass(found) else returned(found)
    if not inspect.isclass(made):
        return False
    declared = (getattr(parent, "__annotations__", {}) for parent in made.__mro__)
    return {*dir(made), *chain(*declared)}.issuperset(names)


def makes_calls_with(found: Any, arguments: Iterable[str]) -> bool:
    """Return whether something is a class with these arguments whose objects can be called."""
    parents = found.__mro__ if inspect.isclass(found) else ()
    if not any("__call__" in vars(parent) for parent in parents):
        return False
    return set(inspect.signature(found).parameters).issuperset(arguments)


def _may_make_module(found: Any) -> bool:
    """Return whether something may make a module; model zoos often lack annotations."""
    if inspect.isclass(found):
        return issubclass(found, nn.Module)
    said = returned(found)
    return not inspect.isclass(said) or issubclass(said, nn.Module)


MODULE = Kind(
    "a network",
    _may_make_module,
    "a subclass of torch.nn.Module, or a function that returns one and says so: `-> nn.Module`",
)
