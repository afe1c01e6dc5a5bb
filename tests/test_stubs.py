"""The types that editors and mypy see of lazy packages are those of what can be imported.

`python tests/test_stubs.py` writes the files with these types.
"""

import ast
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType

import kd_cls.models
import kd_core.criteria
import pytest

_HEAD = "# Written by `python tests/test_stubs.py`, from what the files beside this one define."
_CAPITALS = "# ruff: noqa: N802"  # some networks' functions begin with one
_TAIL = "\ndef __getattr__(name: str) -> Any: ...  # for names that are newer than this file\n"


def file_of(package: ModuleType) -> Path:
    """Return the stub file of a package."""
    return Path(str(package.__file__)).with_suffix(".pyi")


def criteria() -> str:
    """Return the text of the stub of `kd_core.criteria`."""
    found = {name: getattr(kd_core.criteria, name) for name in kd_core.criteria.__all__}
    # As ruff sorts them: names in capitals come first.
    order = sorted(found, key=lambda name: (found[name].__module__, not name.isupper(), name))
    lines = [f"from {found[name].__module__} import {name} as {name}" for name in order]
    return "\n".join([_HEAD, "", "from typing import Any", "", *lines, _TAIL])


def models() -> str:
    """Return the text of the stub of `kd_cls.models`."""
    zoo = import_module("kd_cls.models.zoo")
    others = [name for name in kd_cls.models.__all__ if name not in zoo.MODELS]
    imports = ["from typing import Any", "", "from torch import nn", ""]
    imports += [f"from kd_cls.models.zoo import {name} as {name}" for name in others]
    networks = []
    for name, build in sorted(zoo.MODELS.items()):
        classes = inspect.signature(build).parameters["num_classes"].default
        taken = f"num_classes: int = {classes}, **kwargs: Any"
        networks.append(f"def {name}({taken}) -> nn.Module: ...")
    return "\n".join([_CAPITALS, _HEAD, "", *imports, "", *networks, _TAIL.lstrip()])


STUBS = {kd_core.criteria: criteria, kd_cls.models: models}
"""What writes the stub of each lazy package."""


def statements(text):
    """Return the source of each import and function of a stub."""
    return {ast.unparse(node) for node in ast.parse(text).body}


@pytest.mark.parametrize("package", STUBS, ids=lambda package: package.__name__)
def test_no_line_of_a_stub_is_wrong(package):
    """A name may be newer than the stub: then editors take it for `Any`."""
    written = statements(file_of(package).read_text(encoding="utf-8"))
    wrong = written - statements(STUBS[package]())
    assert wrong == set(), "write it again with `python tests/test_stubs.py`"
    assert len(written) > 40


@pytest.mark.parametrize("package", STUBS, ids=lambda package: package.__name__)
def test_every_public_name_is_listed_once_and_can_be_imported(package):
    names = package.__all__
    assert names == sorted(set(names))
    assert set(names) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in names)


if __name__ == "__main__":
    for package, text in STUBS.items():
        file_of(package).write_text(text(), encoding="utf-8")
