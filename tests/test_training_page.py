"""Each command of docs/training.md runs."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from kd_cls.train import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^uv run tools/cls_train.py (.*)$", PAGE, re.MULTILINE)
FILE = "teacher.safetensors"


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--save-outputs" not in c])
def test_a_training_command_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))  # a dry run has other data, and does not read it
    given = shlex.split(command.replace(FILE, str(tmp_path / "x.npy")))
    few = ["--cfg-options"] * ("--cfg-options" not in given) + ["data.batch_size=2"]
    assert main(["--dry-run", *given, *few]) == 0


def test_the_file_that_one_command_writes_is_what_another_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    write, read = (next(c for c in COMMANDS if key in c) for key in ("--save-outputs", "outputs'"))
    few = ["data.limit_per_class=3", "teacher.data.limit_per_class=3", "trainer.epochs=1"]
    few += ["schedule.warmup_epochs=0", "trainer.loggers=[]", "trainer.allow_weak_teacher=True"]
    own = ["teacher.trainer.epochs=1", "teacher.schedule.warmup_epochs=0"]
    run = ["--work-dir", str(tmp_path / "runs/x")]
    write, read = (shlex.split(c.replace(FILE, str(tmp_path / FILE))) for c in (write, read))
    options = ["--cfg-options", *few, *own]
    assert main([*write, *run, *options]) == 2
    assert "is not trained" in capsys.readouterr().err
    config = [argument for argument in write if argument.endswith(".py")]
    assert main([*config, *run, *options]) == 0
    assert main([*write, *run, *options]) == 0
    run = ["--work-dir", str(tmp_path / "runs/y")]
    kept = [option for option in few if not option.startswith("teacher.")]
    assert main([*read, *kept, *run]) == 0
