"""Wrong values and damaged config files end in a step or in one line, in all three tools.

`benchmarks/fuzz.py` tries hundreds.
"""

import importlib.util
import random
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TRIES = {"cls": (24, 14), "reid": (8, 6), "det": (5, 5)}
"""By tool, how many options and how many files."""


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("fuzz")


@pytest.mark.parametrize("kind", ["options", "files"])
@pytest.mark.parametrize("tool", TRIES)
def test_every_try_ends_in_a_step_or_in_one_line(fuzz, tool, kind, tmp_path):
    if tool == "det" and importlib.util.find_spec("detectron2") is None:
        pytest.skip("detectron2 is not installed")
    fuzz.write_files(tmp_path)
    make, count = (
        (fuzz.option_tries, TRIES[tool][0])
        if kind == "options"
        else (fuzz.file_tries, TRIES[tool][1])
    )
    for attempt in make(tool, random.Random(f"0 {tool}"), count, tmp_path):
        ended = fuzz.run(attempt, tmp_path)
        assert not ended.problem, (attempt.argv, ended)


@pytest.mark.parametrize("tool", TRIES)
def test_what_the_tries_are_made_from_takes_a_step(fuzz, tool, tmp_path):
    if tool == "det" and importlib.util.find_spec("detectron2") is None:
        pytest.skip("detectron2 is not installed")
    fuzz.write_files(tmp_path)
    files = ("--config-file", "student.yaml") if tool == "det" else (f"{tool}.py",)
    ended = fuzz.run(fuzz.Try(tool, (*files, "--dry-run"), "as it is"), tmp_path)
    assert (ended.status, ended.problem) == (0, "")


def test_every_bad_end_is_seen(fuzz, tmp_path, monkeypatch):
    def hangs(argv):
        while True:
            pass

    def has_a_bug(argv):
        print("error: KeyError. This is a bug of kd", file=__import__("sys").stderr)
        return 1

    def raises(argv):
        raise ZeroDivisionError

    ends = {
        hangs: "ended with hang",
        has_a_bug: "a traceback, or a bug",
        raises: "ended with ZeroDivisionError",
        lambda argv: 0: "accepted without a step",
        lambda argv: 2: "refused without a line",
        lambda argv: 7: "ended with 7",
    }
    for main, problem in ends.items():
        monkeypatch.setattr(fuzz, "tool_of", lambda tool, main=main: main)
        assert fuzz.run(fuzz.Try("x", (), ""), tmp_path, limit=0.2).problem == problem
