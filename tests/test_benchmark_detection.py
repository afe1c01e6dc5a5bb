"""The table of detection: its cells, their configs, and what it prints."""

import importlib

import pytest
from kd_det.terms import parse_terms


@pytest.fixture
def det_table(monkeypatch):
    monkeypatch.syspath_prepend("benchmarks")
    return importlib.import_module("det_table")


def test_a_cell_is_a_method_of_a_network_with_one_teacher(det_table, tmp_path):
    found = det_table.cells([0, 1])
    assert len(found) == len(set(found)) == 2 + 2 * (2 + sum(map(len, det_table.TABLE.values())))
    assert [cell.method for cell in found[:2]] == [det_table.TEACHER] * 2
    (tmp_path / "configs").mkdir()
    for cell in found:
        cfg = det_table.config(cell, tmp_path, ["SOLVER.MAX_ITER", "3"])
        distilled = cell.method not in (det_table.TEACHER, det_table.ALONE)
        assert bool(parse_terms(cfg)) == distilled
        assert cfg.SOLVER.MAX_ITER == 3
        assert cfg.MODEL.META_ARCHITECTURE.endswith("RCNN") == (cell.network == "faster_rcnn")
        if distilled:
            assert cfg.KD.TEACHER.WEIGHTS.endswith(f"{cell.network}-teacher-0/model_final.pth")


def test_the_table_shows_all_seeds_and_marks_the_best(det_table):
    def cell(method, seed, score):
        last = {"AP": score / 2, "AP50": score}
        of = {"network": "retinanet", "method": method, "seed": seed, "last": last}
        return {**of, "best": {**last, "AP50": score + 1}, "train_seconds": 60.4}

    cells = [cell("teacher", 0, 66.0)]
    cells += [cell("alone", seed, 40.0 + seed) for seed in (0, 1)]
    cells += [cell("bckd", seed, 45.0 - seed) for seed in (0, 1)]
    text = det_table.table({"machine": {"device": "m", "commit": "c0ffee"}, "cells": cells})
    assert "| RetinaNet | teacher | 1 | 33.0 | 66.0 | 67.0 |  | 60 |" in text
    assert (
        "| RetinaNet | bckd | 2 | 22.2 ± 0.4 | 44.5 ± 0.7 | 45.5 ± 0.7 | +5.0, +3.0 | 60 |" in text
    )
    assert "chosen on the test images" in text


def test_the_table_of_the_page_is_that_of_the_results(det_table):
    if not det_table.RESULTS.is_file():
        pytest.skip("no results are kept yet")
    assert det_table.table(det_table.load_json(det_table.RESULTS)) in det_table.PAGE.read_text()
