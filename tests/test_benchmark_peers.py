"""The benchmark of other packages' KD step: whoever is installed takes the same step."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ["--teacher", "resnet14", "--student", "resnet8", "--batch-size", "4", "--device", "cpu"]


@pytest.fixture
def peers(monkeypatch):
    """Return the module of the benchmark."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("peers")


@pytest.fixture
def measured(peers, monkeypatch, tmp_path):
    """Return a function that runs the benchmark with few rounds and returns its JSON."""

    def measure(*options):
        out = tmp_path / "peers.json"
        options = [*TINY, "--rounds", "3", "--warmup", "1", "--out", str(out), *options]
        monkeypatch.setattr(sys, "argv", ["peers.py", *options])
        peers.main()
        return json.loads(out.read_text())

    return measure


@pytest.mark.parametrize("options", [[], ["--plain"]])
def test_all_loops_that_are_installed_take_the_same_step(measured, capsys, options):
    report = measured(*options)
    out = capsys.readouterr().out
    loops = report["loops"]
    assert {"bare", "kd_core"} <= loops.keys()
    for name in ("torchdistill", "timm"):
        assert (name in loops) != (f"{name} is left out" in out)
        assert (name in loops) == (name in report["versions"])
    assert all(loop["difference"] < 1e-5 and loop["ms"] > 0 for loop in loops.values())
    assert loops["bare"]["ratio"] == 1
    assert loops["bare"]["more_ms"] == 0
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(loops)


def test_peer_that_is_not_installed_is_left_out(measured, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm.task", None)  # so it is for import
    monkeypatch.setitem(sys.modules, "torchdistill.core.distillation", None)
    assert list(measured()["loops"]) == ["bare", "kd_core"]
    out = capsys.readouterr().out
    assert "timm is left out" in out
    assert "torchdistill is left out" in out


def test_every_loop_takes_one_step_a_round_and_warm_up_is_not_counted(peers, monkeypatch, measured):
    counts = []
    compare = peers.compare

    def counting(ms, base):
        counts.append(len(ms))
        return compare(ms, base)

    monkeypatch.setattr(peers, "compare", counting)
    loops = measured()["loops"]
    assert counts == [3] * len(loops)


def test_ratios_are_those_of_the_same_round(peers):
    row = peers.compare([2.0, 30.0, 4.0], [1.0, 10.0, 4.0])
    assert row["ms"] == 4
    assert row["ratio"] == 2
    assert row["more_ms"] == 1
    assert row["quartiles"][0] <= 2 <= row["quartiles"][1]
