"""One file a method: its pure functions and its class.

The classes are importable from here, `from kd_core.criteria import DKD`; the functions from their
files, `from kd_core.criteria.dkd import dkd`. A file is imported when one of its classes is first
used. The types for editors are in `__init__.pyi`, which `python tests/test_stubs.py` writes.
"""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from kd_core.errors import missing_attribute


@cache
def _defined_in() -> dict[str, str]:
    """Return the module of every public class, found in the text of the files beside this one."""
    return {
        node.name: path.stem
        for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_defined_in())
    if name.startswith("_") or name not in _defined_in():
        raise missing_attribute(__name__, name, () if name.startswith("_") else _defined_in())
    value = getattr(import_module(f"{__name__}.{_defined_in()[name]}"), name)
    globals()[name] = value  # next time Python finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_defined_in()})
