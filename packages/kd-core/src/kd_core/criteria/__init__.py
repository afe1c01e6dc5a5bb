"""One file a method: its pure functions and its module.

The classes are importable from here, `from kd_core.criteria import DKD`; the functions from their
files, `from kd_core.criteria.dkd import dkd`. A file is imported when one of its classes is asked
for.
"""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


@cache
def _homes() -> dict[str, str]:
    """Return the module of every public class, found in the text of the files beside this one."""
    return {
        node.name: path.stem
        for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in _homes():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_homes()[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})
