"""Style and types are tests too."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted(ROOT.glob("packages/*/src")), *sorted(ROOT.glob("tools/*.py"))]


def run(tool: str, *arguments: str | Path) -> None:
    """Run a python tool at the root of the project and fail with what it printed."""
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    command = [sys.executable, "-m", tool, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    run("ruff", "check", ".")


def test_files_are_formatted():
    run("ruff", "format", "--check", ".")


def test_types_agree():
    run("mypy", *SOURCES)
