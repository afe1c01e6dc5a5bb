"""Each command of docs/memory.md runs."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from kd_cls.train import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/memory.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^uv run tools/cls_train.py (.*)$", PAGE, re.MULTILINE)
IN_PROCESSES = re.findall(r"^torchrun .* tools/cls_train.py (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_training_command_runs(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["--dry-run", *shlex.split(command), "data.batch_size=2"]) == 0


def test_the_command_of_a_sharded_teacher_wants_several_processes(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (command,) = IN_PROCESSES
    assert main(["--dry-run", *shlex.split(command)]) == 2
    assert "trainer.shard_teachers spreads teachers over processes" in capsys.readouterr().err


def test_the_benchmark_shows_that_blocks_and_banks_take_less(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    memory = pytest.importorskip("memory")
    monkeypatch.setitem(memory.CASES, "resnet8", (2, 32))
    plain, again = (memory.activations("resnet8", way, memory.CPU, 1) for way in (False, True))
    assert again["blocks_that_run_again"] == 3
    assert again["kept_bytes"] < plain["kept_bytes"] / 2
    assert memory.main(["--only", "banks", "--samples", "300", "--repeats", "1"]) == 0
    whole, half = map(json.loads, capsys.readouterr().out.splitlines())
    assert half["bank_bytes"] * 2 == whole["bank_bytes"]
    assert half["kept_bytes"] < whole["kept_bytes"]
    sys.modules.pop("memory")
