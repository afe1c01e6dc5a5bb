"""From import paths to objects."""

import difflib
import importlib
import pkgutil
from collections.abc import Collection
from types import ModuleType
from typing import Any

from kd_core.errors import UserError, nearest
from kd_core.runtime.user_code import FAILURES, pass_signals, with_place

_OF_NETWORKS = ("timm", "torchreid", "torchvision", "transformers")
"""Libraries of networks that not every installation has; each is installed by its own name."""


def locate(path: str) -> Any:
    """Import the object that a dotted path names, such as `torch.optim.SGD`.

    Raises:
        UserError: If a part of the path does not exist, or its module cannot be imported.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"{path!r} is not an import path such as 'torch.optim.SGD'")
    owner: Any = _import_module(parts[0])
    if owner is None and parts[0] in _OF_NETWORKS:
        raise UserError(
            f"{path!r}: the library {parts[0]} is not installed: pip install {parts[0]}"
        )
    if owner is None:
        hint = _hint(parts[0], [module.name for module in pkgutil.iter_modules()])
        raise UserError(
            f"{path!r}: there is no module {parts[0]!r}{hint} "
            "(is it here, or its folder on PYTHONPATH?)"
        )
    for end in range(2, len(parts) + 1):
        owner = _member(owner, parts[:end], prefer_attribute=end == len(parts))
    return owner


def _member(owner: Any, parts: list[str], *, prefer_attribute: bool) -> Any:
    """Return the submodule or attribute of `owner` that the last of `parts` names.

    Where a package has both under one name (`kd_core.build`), what follows in the path decides.
    """
    name = parts[-1]
    if not (prefer_attribute and hasattr(owner, name)) and isinstance(owner, ModuleType):
        module = _import_module(".".join(parts))
        if module is not None:
            return module
    if hasattr(owner, name):
        return getattr(owner, name)
    names = [known for known in dir(owner) if not known.startswith("_")]
    names += [module.name for module in pkgutil.iter_modules(getattr(owner, "__path__", ()))]
    raise UserError(f"{'.'.join(parts[:-1])} has no {name!r}{_hint(name, names)}")


def _import_module(name: str) -> ModuleType | None:
    """Import a module; None if there is none of this name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise UserError(f"{name} needs {error.name}, which is not installed") from error
    except ImportError as error:
        raise UserError(f"{name} cannot be imported: {error}") from error
    except UserError:
        raise
    except FAILURES as error:
        pass_signals(error)
        raise UserError(f"{name} cannot be imported: {with_place(error)}") from error


def _hint(name: str, names: Collection[str]) -> str:
    """Return the nearest names only: a module has too many to list them all."""
    alike = [known for known in names if known.lower() == name.lower()]
    alike += difflib.get_close_matches(name, names)
    return nearest(name, alike)
