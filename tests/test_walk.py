"""A key's walk from the command line to the constructor that takes its value enters few files."""

import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from kd_cls.train import main
from kd_core.criteria.dkd import DKD

ROOT = Path(__file__).parents[1]
VALUE = 4.0625  # nothing else has it
MOST = 12


def carries(value, depth=9):
    """Return whether the value is in an argument: in a text, or anywhere inside."""
    if isinstance(value, float | str):
        return value == VALUE or (isinstance(value, str) and str(VALUE) in value)
    if depth == 0:
        return False
    if isinstance(value, Mapping):
        return any(carries(item, depth - 1) for item in value.values())
    if isinstance(value, list | tuple):
        return any(carries(item, depth - 1) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return any(carries(getattr(value, f.name, None), depth - 1) for f in fields(value))
    return type(value).__name__ == "Namespace" and carries(vars(value), depth - 1)


class ArrivedError(Exception):
    """The constructor was called with the value."""


@pytest.fixture
def walk():
    """Return the files, in order, whose functions were called with the value until DKD was."""
    files: list[str] = []
    looked_at: Counter[object] = Counter()  # what is called again and again is looked at few times

    def look(frame, event, argument):
        code = frame.f_code
        if event != "call" or "/kd_" not in code.co_filename or looked_at[code] > 4:
            return
        looked_at[code] += 1
        if code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), DKD):
            files.append(code.co_filename)
            raise ArrivedError
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2]
        if code.co_filename not in files and any(
            carries(frame.f_locals[name]) for name in names if name in frame.f_locals
        ):
            files.append(code.co_filename)

    def trace(*argv):
        sys.setprofile(look)
        try:
            main(argv)
        except ArrivedError:
            pass
        finally:
            sys.setprofile(None)
        return [f"{Path(file).parent.name}/{Path(file).name}" for file in dict.fromkeys(files)]

    return trace


def listed():
    """Return the files of the walk in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("### The way of a config key")[2].partition("\n### ")[0]
    return re.findall(r"^\d+\. `(\w+/\w+\.py)`:", section, re.MULTILINE)


def test_a_key_enters_at_most_twelve_files_those_of_contributing(walk, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    option = f"distiller.terms.dkd.criterion.beta={VALUE}"
    files = walk("--dry-run", "--cfg-options", option)
    assert files == listed()
    assert files[0].startswith("experiment/")
    assert files[-1] == "criteria/dkd.py"
    assert len(files) <= MOST, "\n".join(files)
