"""docs/own_network.md: its commands run, one after the other."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from kd_cls import export, train

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/own_network.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^ *uv run (.*)$", PAGE, re.MULTILINE)]
FEW = ["data.limit_per_class=2", "trainer.epochs=1", "trainer.loggers=[]"]
TEACHER = ["teacher.data.limit_per_class=2", "teacher.trainer.epochs=1"]
NO_WARM_UP = ["schedule.warmup_epochs=0", "teacher.schedule.warmup_epochs=0"]
OPTIONS = [*FEW, *TEACHER, *NO_WARM_UP, "trainer.allow_weak_teacher=True"]


def test_a_network_of_one_s_own_is_tried_trained_and_exported(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    for name in ("configs", "examples"):
        Path(name).symlink_to(ROOT / name)
    for tool, *arguments in COMMANDS:
        if tool == "tools/cls_export.py":
            assert export.main([*arguments, "--no-latency"]) == 0
        else:
            assert train.main([*arguments, "--cfg-options", *OPTIONS]) == 0
        if "--list-taps" in arguments:
            assert "blocks.2" in capsys.readouterr().out
    assert (tmp_path / "runs/own_network/seed-0/student.onnx").is_file()
    assert len(list(tmp_path.glob("runs/own_network/seed-*"))) == 3
