"""Each command of the section on stored targets runs, and the benchmark measures."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from kd_cls.train import main
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/foundation.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Stored targets")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^uv run tools/cls_train.py (.*)$", SECTION, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_with_stored_targets_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for number in range(20):
        place = tmp_path / ("train", "test")[number % 2] / f"class {number // 2}"
        place.mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(place / "x.png")
    given = shlex.split(command.replace("data/images", str(tmp_path)))
    assert main([*given, "data.workers=0", "--dry-run"]) == 0
    assert not Path("kept").exists()


def test_the_benchmark_of_stored_targets_measures_three_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.py").write_text(
        "data = dict(type='kd_cls.data.synthetic', num_train=16, num_test=8, batch_size=8,\n"
        "            augment=[dict(type='kd_cls.data.augment.Flip')])\n"
        "student = dict(network=dict(type='kd_cls.models.build_model', name='resnet8'))\n"
        "teacher = dict(student, weights='random')\n"
        "distiller = dict(terms=dict(kd=dict(criterion=dict(type='kd_core.criteria.kd.KD'))))\n"
        "optimizer = dict(type='torch.optim.SGD', lr=0.01)\n"
        "schedule = dict(type='kd_core.training.schedule.constant')\n"
        "trainer = dict(loggers=[])\n"
    )
    out = tmp_path / "out.json"
    script = str(ROOT / "benchmarks/stored_targets.py")
    options = [str(tmp_path / "tiny.py"), "--epochs", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [script, *options])
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    runpy.run_path(script, run_name="__main__")
    assert "first / second" in capsys.readouterr().out
    found = json.loads(out.read_text())
    online, first, second = found["runs"]
    assert first["losses"] == second["losses"]
    assert first["losses"]["loss_kd"] == pytest.approx(online["losses"]["loss_kd"], rel=1e-2)
    assert found["bytes"] > 16 * 10 * 2
