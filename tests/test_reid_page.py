"""docs/reid.md and docs/reid_unlabelled.md: their commands run, small, and their tables fit."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("torchreid")
from kd_reid import train
from kd_reid.adapter import ADAPTER
from kd_reid.models import build_model

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / f"docs/{name}.md").read_text("utf-8") for name in ("reid", "reid_unlabelled")
}
COMMANDS = [
    shlex.split(line)
    for line in re.findall(r"^(?:\w+=\d )?uv run (.*)$", "\n".join(PAGES.values()), re.MULTILINE)
]
QUICK = ["data.batch_size=8", "data.image_size=[32,16]", "data.workers=0"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Crops and a teacher's weights."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    Path("packages").symlink_to(ROOT / "packages")
    for number in range(16):
        path = tmp_path / "data/crops" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 30), (10 * number, 0, 0)).save(path)
    torch.save(build_model("osnet_x1_0", 7).state_dict(), "teacher.pth")


@pytest.fixture
def reid_table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("reid_table")


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c[0] == "tools/reid_train.py"], ids=" ".join
)
def test_a_training_of_the_pages_takes_a_step(command, folder, capsys):
    given = [word for word in command[1:] if word != "--seeds" and not word.isdigit()]
    more = QUICK if "--cfg-options" in given else ["--cfg-options", *QUICK]
    assert train.main([*given, *more, "--dry-run"]) == 0
    assert "training step done" in capsys.readouterr().out


def test_every_command_of_the_pages_is_one_that_these_tests_run():
    known = {f"benchmarks/reid_{name}.py" for name in ("ranking", "memory", "table")}
    of_lookup = {f"tools/reid_{name}.py" for name in ("embed", "search", "evaluate")}
    assert {command[0] for command in COMMANDS} == known | of_lookup | {"tools/reid_train.py"}


def test_the_memory_of_a_search_is_measured(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    memory = importlib.import_module("reid_memory")
    command = next(c for c in COMMANDS if c[0].endswith("reid_memory.py"))
    assert memory.main([*command[1:], "--queries", "20", "--gallery", "60"]) == 0
    assert "re-ranking" in capsys.readouterr().out


def test_the_ranking_of_the_page_is_measured_part_by_part(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    ranking = importlib.import_module("reid_ranking")
    command = next(c for c in COMMANDS if c[0].endswith("reid_ranking.py"))
    for part in ranking.PARTS:
        given = [*command, "--small", "--repeats", "1", "--part", part]
        monkeypatch.setattr(sys, "argv", given)
        assert ranking.main() == 0
        assert "queries" in json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_page_names_every_measure():
    measured = ("cosine", "relative_error", "cka", "effective_rank", "rank1", "mAP")
    assert set(measured) < set(ADAPTER.headings)
    assert [name for name in measured if f"`{name}`" not in PAGES["reid_unlabelled"]] == []


def test_a_cell_of_the_table_has_its_teacher_and_its_labels(reid_table, tmp_path, monkeypatch):
    from kd_core.experiment.parsing import read_experiment

    monkeypatch.setattr(reid_table, "synthetic_people", lambda: tmp_path / "people")
    args = reid_table.parse(["--epochs", "3"])
    cells = reid_table.cells([0, 1])
    assert len(cells) == len(set(cells)) == 2 * len(reid_table.ROWS)
    for cell in [reid_table.Cell(reid_table.TEACHER, 0), *cells[: len(reid_table.ROWS)]]:
        given = reid_table.arguments(cell, tmp_path, args)
        files = given[: given.index("--work-dir")]
        options = dict(o.split("=") for o in given[given.index("--resume") + 2 :])
        epochs = {k: float(v) if "." in v else int(v) for k, v in options.items()}
        experiment = read_experiment(ADAPTER, files, epochs)
        row = reid_table.ROWS.get(cell.row, reid_table.ROWS[reid_table.ALONE])
        crops = str(experiment.data["type"]) == "kd_reid.unlabelled.crops"
        assert crops != row.labels
        assert bool(experiment.terms) == bool(experiment.teachers) == (row.file is not None)
        if row.teacher is not None:
            weights = Path(experiment.teachers["teacher"].weights)
            assert weights.name == ("student.pth" if row.teacher else "headless.pth")


def test_the_table_shows_all_seeds_and_what_they_gain(reid_table):
    def cell(row, seed, rank):
        last = {"rank1": rank, "mAP": rank / 2}
        return {"row": row, "seed": seed, "last": last, "train_seconds": 60.4}

    cells = [cell("teacher", 0, 80.0)]
    cells += [cell("alone", seed, 40.0 + seed) for seed in (0, 1)]
    cells += [cell("crops", seed, 45.0 - seed) for seed in (0, 1)]
    machine = {"device": "m", "commit": "c0ffee"}
    text = reid_table.table({"machine": machine, "epochs": 8, "cells": cells})
    assert "| is the teacher | identities alone | yes | 1 | 80.0 | 40.0 |  | 60 |" in text
    assert (
        "| without a head | cosine | no | 2 | 44.5 ± 0.7 | 22.2 ± 0.4 | +5.0, +3.0 | 60 |" in text
    )


def test_the_table_of_the_page_is_that_of_the_results(reid_table):
    if not reid_table.RESULTS.is_file():
        pytest.skip("no results are kept yet")
    assert reid_table.table(reid_table.load_json(reid_table.RESULTS)) in PAGES["reid"]
