"""The benchmarks of steps and epochs run, and say what they measured."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

SPEED = Path(__file__).parents[1] / "docs/speed.md"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ["--pair", "resnet56_resnet20", "--batch-size", "2"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return what runs a benchmark and gives its JSON."""

    def run(name, *options):
        monkeypatch.syspath_prepend(BENCHMARKS)
        out = tmp_path / "out.json"
        monkeypatch.setattr(sys, "argv", [name, *SMALL, *options, "--out", str(out)])
        importlib.import_module(name).main()
        return json.loads(out.read_text())

    return run


def test_steps_in_every_way_beside_the_bare_loop(run, capsys):
    result = run("step", "--repeats", "1", "--warmup", "0", "--method", "kd")
    rows = {row["way"]: row for row in result["ways"]}
    left_out = {"compiled"} if torch.cuda.is_available() else {"compiled", "eager", "eager-bf16"}
    assert set(rows) == set(importlib.import_module("step").WAYS) - left_out
    assert rows["bare"]["to_bare"] == 1
    assert all(row["ms"] > 0 and row["to_bare"] > 0 for row in rows.values())
    printed = capsys.readouterr().out
    assert all(f"| {way} |" in printed for way in rows)
    assert result["environment"]["device"]


def test_ways_can_be_chosen_and_the_method_may_look_at_maps(run):
    options = ["--ways", "default", "--method", "at", "--repeats", "2", "--warmup", "0"]
    (row,) = run("step", *options)["ways"]
    assert "to_bare" not in row


def test_epochs_are_timed_online_and_from_the_cache(run, capsys):
    ways = ["online fp32", "cached bf16"]
    rows = run("epoch", "--images", "6", "--epochs", "2", "--ways", *ways, "--method", "kd")["ways"]
    assert [row["way"] for row in rows] == ways
    assert all(row["minutes_of_240"] == pytest.approx(4 * row["seconds"]) for row in rows)
    assert "| online fp32 |" in capsys.readouterr().out


def test_the_script_for_gpus_names_files_that_exist_and_options_that_they_have():
    script = (BENCHMARKS / "gpu.sh").read_text()
    lines = [shlex.split(line) for line in script.splitlines() if line.startswith("run ")]
    assert len(lines) > 5
    for _, _, python, *command in lines:
        assert python == "$python"
        files = [word for word in command if word.endswith(".py")]
        assert all((BENCHMARKS.parent / file).is_file() for file in files)
        if files[0].startswith("benchmarks/"):
            source = (BENCHMARKS.parent / files[0]).read_text()
            options = [word for word in command if word.startswith("--")]
            assert all(f'"{option}"' in source for option in options)


def test_the_page_on_speed_names_files_that_exist():
    names = re.findall(r"(?:configs|benchmarks|docs)/[\w./-]*\w", SPEED.read_text())
    assert [name for name in names if not (SPEED.parents[1] / name).exists()] == []
