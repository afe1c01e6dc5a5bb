"""The commands that print what the docs claim."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "benchmarks/methods.py"


def test_golden_option_prints_the_worst_error_of_a_method():
    command = [sys.executable, "-m", "pytest", "packages/kd-core/tests/test_kd.py", "--golden"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("kd ")]
    assert float(line.split()[-1]) < 1e-6


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Return the options of a table of tiny runs, on synthetic images."""
    data = tmp_path / "tiny.py"
    data.write_text(
        "data = dict(type='kd_cls.data.synthetic', num_train=16, num_test=8, batch_size=8)\n"
        "optimizer = dict(type='torch.optim.SGD', lr=0.01)\n"
        "schedule = dict(type='kd_core.schedule.cosine')\n"
        "trainer = dict(epochs=1, tensorboard=False)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--data", str(data.with_suffix("")), "--results", str(tmp_path / "cells.jsonl")]
    options += ["--epochs", "1", "--options", "teacher.weights=random"]
    return options


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(METHODS), *arguments])
    runpy.run_path(str(METHODS), run_name="__main__")


def test_table_of_methods_goes_on_cell_by_cell(arguments, monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--methods", "fitnet", "--seeds", "0", *arguments)
    run(monkeypatch, "--methods", "fitnet", "--seeds", "0", "1", *arguments)
    cells = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert [(cell["method"], cell["seed"]) for cell in cells] == [("fitnet", 0), ("fitnet", 1)]
    assert cells[0]["extra_parameters"] > 1000
    assert cells[0]["peak_memory_mb"] > 50
    assert "| fitnet | 2 |" in capsys.readouterr().out


def test_table_in_the_docs_is_that_of_its_results(monkeypatch, capsys):
    run(monkeypatch, "--table")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    assert all(row in text for row in rows)
