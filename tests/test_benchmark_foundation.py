"""The measurements of docs/foundation.md: cells are run once, resumed, and tabled as they are."""

import importlib
import json
import os
from pathlib import Path

import pytest
import torch
from kd_core.files.checkpoint import load_json

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def module():
    """Return a function that imports a module of the benchmark."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module
    patch.undo()


@pytest.fixture(scope="module")
def foundation(module):
    return module("foundation")


@pytest.fixture(scope="module")
def tiny(foundation, tmp_path_factory):
    """Return a function that runs some cells of one tiny plan, and their folder."""
    folder = tmp_path_factory.mktemp("foundation")

    def run(*options):
        return foundation.main(
            ["--tiny", "--jobs", "0", "--seeds", "0", "--work-dir", str(folder), *options]
        )

    return run, folder


def test_a_tiny_student_of_two_teachers_is_measured_and_not_trained_again(tiny, capsys):
    run, folder = tiny
    assert run("--only", "unic-both") == 0
    cell = load_json(folder / "cells/cifar-unic-both-0.json")
    assert cell.keys() >= {"knn", "linear", "lite0", "lite2", "images_per_second"}
    assert 0 < cell["lite2"]["relative_error"] < 3
    out = capsys.readouterr().out
    assert "[1/1] cifar-unic-both-0" in out
    assert "| UNIC, both teachers | 1 |" in out
    trained = (folder / "runs/cifar-unic-both-0/student.safetensors").stat().st_mtime_ns
    assert run("--only", "unic-both") == 0  # nothing is missing
    assert "[1/1]" not in capsys.readouterr().out
    (folder / "cells/cifar-unic-both-0.json").unlink()
    assert run("--only", "unic-both") == 0  # stopped before it was measured
    assert load_json(folder / "cells/cifar-unic-both-0.json")["knn"] == cell["knn"]
    assert (folder / "runs/cifar-unic-both-0/student.safetensors").stat().st_mtime_ns == trained


def test_few_labels_are_shown_as_often_as_all_images_and_are_those_of_the_probes(tiny, module):
    run, folder = tiny
    assert run("--only", "elpv-labels-2") == 0
    assert load_json(folder / "cells/elpv-labels-2-0.json").keys() >= {"top1", "linear_2"}
    config = load_json(folder / "runs/elpv-labels-2-0/config.json")
    assert config["config"]["data"]["copies"] == 6  # of 4 images, 24 less what is held out
    shown = {path.name for path in (folder / "images/elpv-2-0/train").glob("*/*")}
    assert len(shown) == 4
    probes, features = module("kd_cls.probes"), module("foundation_features")
    known, _ = features.labelled(folder / "images/elpv", 8)
    files = sorted((folder / "images/elpv/train").glob("*/*"))
    taken = {files[n].name for n in probes.few_of_each_class(known.labels, 2, 0).tolist()}
    assert taken == shown


def test_a_folder_of_another_plan_and_unknown_fields_are_refused(tiny, capsys):
    run, _ = tiny
    run("--minutes", "0")
    assert run("--set", "epochs=2") == 2
    assert "plan.json: epochs is 1 there and 2 here; name another --work-dir" in _error(capsys)
    assert run("--set", "epoch=2") == 2
    assert "no number 'epoch'; did you mean 'epochs'" in _error(capsys)
    assert run("--set", "epochs=0") == 2
    assert "wanted a whole number, at least 1" in _error(capsys)


def test_no_cell_is_started_when_the_minutes_are_over(foundation, tmp_path, capsys):
    options = ["--tiny", "--jobs", "0", "--work-dir", str(tmp_path / "new"), "--minutes", "0"]
    assert foundation.main(options) == 2
    assert "no cell is finished" in _error(capsys)


def _error(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


def _results():
    plan = {"train": 1024, "size": 32, "epochs": 5, "teacher_size": 96, "test": 500}
    plan |= {"shots": [10, 0], "elpv_epochs": 4, "elpv_size": 48, "elpv_test": 200}
    cells = [
        {"images": "cifar", "arm": "unic lite0", "seed": seed, "knn": 50.0 + seed}
        for seed in (0, 1, 2)
    ]
    cells += [{"images": "elpv", "arm": "labels 10", "seed": 0, "linear_10": 61.26}]
    machine = {"device": "a machine", "commit": "c0ffee"}
    return {"plan": plan, "machine": machine, "cells": cells}


def test_tables_have_mean_and_deviation_of_each_arm_and_go_between_their_marks(module, tmp_path):
    pages, page = module("pages"), tmp_path / "page.md"
    text = module("foundation_table").table(_results())
    assert "10,035 training images" in text
    assert "| UNIC, EfficientNet-Lite0 | 3 | 51.0 ± 1.0 |  |" in text
    assert "| labels alone, 10 of each class | 1 |  |  | 61.3 |  |" in text
    begin, end = (
        "<!-- begin: benchmarks/foundation.py -->",
        "<!-- end: benchmarks/foundation.py -->",
    )
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for _ in range(2):
        pages.write(text, page, "benchmarks/foundation.py")
    assert page.read_text() == f"before\n{begin}\n\n{text}\n\n{end}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="once each"):
        pages.write(text, page, "benchmarks/foundation.py")


def test_the_tables_of_the_page_are_those_of_the_results(foundation, module):
    if not foundation.RESULTS.is_file():
        pytest.skip("no results are kept yet")
    text = module("foundation_table").table(json.loads(foundation.RESULTS.read_text()))
    assert text in foundation.PAGE.read_text(encoding="utf-8")


def test_features_that_hold_a_teachers_have_no_error_and_constants_have_all(module):
    error = module("foundation_features").prediction_error
    x, labels = torch.randn(200, 6), torch.zeros(200)
    y = x @ torch.randn(6, 9) + 3
    half = slice(0, 100), slice(100, 200)
    own, shown = ([(v[part], labels[part]) for part in half] for v in (x, y))
    assert error(own, shown)["relative_error"] < 0.01
    nothing = [(torch.ones(100, 4), labels[:100])] * 2
    found = error(nothing, shown)
    assert found["relative_error"] == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_real_teachers_know_cifar_best_with_the_statistics_of_timm(module, tmp_path):
    if "KD_DATA" not in os.environ:
        pytest.skip("KD_DATA names no folder of real data")
    teachers = module("real_teachers")
    pytest.importorskip(teachers.REAL["lite0"].package)
    pytest.importorskip(teachers.REAL["lite2"].package)
    rows = [row.split("|")[2:5] for row in teachers.probe(tmp_path, 100, 50)]
    assert len(rows) == 2
    for real, imagenet, random in (map(float, row) for row in rows):
        assert real > 55
        assert real > imagenet
        assert real > 25 + random
