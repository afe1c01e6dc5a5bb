"""`curves.png` in a run's folder."""

import json
import sys

import pytest
from kd_core.experiment import curves


def seeds_of(folder, metric="top1"):
    """Make a folder of two finished seeds; return their summary."""
    for seed in (0, 1):
        (folder / f"seed-{seed}").mkdir(parents=True)
        records = [json.dumps({"epoch": epoch, metric: seed + epoch}) for epoch in (1, 2)]
        (folder / f"seed-{seed}/log.jsonl").write_text("\n".join(records))
    return {"metric": "top1", "seeds": [0, 1]}


@pytest.mark.parametrize("metric", ["top1", "val_top1"])
def test_the_seeds_of_a_run_are_drawn(tmp_path, metric):
    pytest.importorskip("matplotlib")
    curves.draw(tmp_path, seeds_of(tmp_path, metric))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_drawn_without_matplotlib(tmp_path, monkeypatch):
    summary = seeds_of(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    curves.draw(tmp_path, summary)
    assert not (tmp_path / "curves.png").exists()


def test_a_picture_that_cannot_be_drawn_is_a_line_and_the_run_stays(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    summary = seeds_of(tmp_path)
    (tmp_path / "seed-1/log.jsonl").write_text("odd")
    curves.draw(tmp_path, summary)
    (line,) = capsys.readouterr().err.splitlines()
    assert "curves.png is not drawn" in line
