"""A user's own modules, named by `--import`: they register parts, and add keys to every config."""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from detectron2.config import CfgNode, get_cfg
from detectron2.config.defaults import _C
from kd_core.errors import UserError, nearest
from kd_core.runtime.user_code import FAILURES, pass_signals, with_place

HOOK = "add_config"
"""Function of a module that adds its keys to a config; another is named after a colon."""


class Imported(NamedTuple):
    """A module that the command line named, and what adds its keys, if it has any."""

    name: str
    add_config: Callable[[CfgNode], object] | None


_imported: ContextVar[tuple[Imported, ...]] = ContextVar("imported", default=())


@contextmanager
def importing(names: Sequence[str]) -> Iterator[None]:
    """Import modules; inside the block, every config starts with the keys that they add.

    Args:
        names: `MODULE` or `MODULE:FUNCTION`, as the command line has them.

    Raises:
        UserError: If a module cannot be imported, or has no such function.
    """
    known = {one.name for one in _imported.get()}
    new = [_import(name) for name in dict.fromkeys(names) if name not in known]
    before = _imported.set((*_imported.get(), *new))
    try:
        yield
    finally:
        _imported.reset(before)


def imported_modules() -> list[str]:
    """Return the modules whose criteria a YAML file may name: the command line named them."""
    return [one.name.partition(":")[0] for one in _imported.get()]


def default_config() -> CfgNode:
    """Return Detectron2's defaults, with the keys of the imported modules.

    Raises:
        UserError: If a module's function fails.
    """
    cfg = get_cfg()
    for name, add_config in _imported.get():
        if add_config is not None:
            try:
                add_config(cfg)
            except Exception as error:
                raise UserError(f"--import {name}: {with_place(error)}") from error
    return cfg


def shared_defaults() -> CfgNode:
    """Return what `default_config` does, to be read alone: where no module adds keys, no copy."""
    adds = any(add_config is not None for _, add_config in _imported.get())
    return default_config() if adds else _C


def _import(name: str) -> Imported:
    path, colon, function = name.partition(":")
    if not all(part.isidentifier() for part in path.split(".")) or path.endswith(".py"):
        raise UserError(
            f"--import {name}: wanted the name of a module, such as my_module for my_module.py, "
            "or my_module:add_my_config"
        )
    try:
        module = importlib.import_module(path)
    except FAILURES as error:
        pass_signals(error)
        raise UserError(f"--import {name}: {_not_imported(path, error)}") from error
    hook = getattr(module, function or HOOK, None)
    if (colon or hook is not None) and not callable(hook):
        names = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(
            f"--import {name}: {path} has no function {function or HOOK!r}"
            f"{nearest(function, names) if function else ''}"
        )
    return Imported(name, hook)


def _not_imported(path: str, error: BaseException) -> str:
    """Return why a module cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{path}.".startswith(f"{error.name}."):
            found = [module.name for module in pkgutil.iter_modules([os.getcwd()])]
            hint = nearest(path, found)
            return f"there is no module {error.name!r} here or on PYTHONPATH{hint}"
        return f"it needs {error.name}, which is not installed"
    return with_place(error)
