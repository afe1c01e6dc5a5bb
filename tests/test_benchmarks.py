"""The commands that print what the docs claim."""

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kd_core.testing import discover

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "benchmarks/methods.py"
ONE = torch.ones(1)


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
        "schedule = dict(type='kd_core.training.schedule.cosine')\n"
        "trainer = dict(epochs=1, loggers=[])\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--data", str(data.with_suffix("")), "--results", str(tmp_path / "cells.jsonl")]
    options += ["--epochs", "1", "--options", "teacher.weights=random"]
    return options


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(METHODS), *arguments])
    runpy.run_path(str(METHODS), run_name="__main__")


def run_script(file, *arguments):
    sys.argv = [file, *arguments]
    runpy.run_path(file, run_name="__main__")


@pytest.fixture
def scripts_are_forked(forks, monkeypatch, tmp_path):
    """Let scripts that are started be forked off, so that they need not import everything."""

    def start(command, **options):
        if command[0] != sys.executable:
            return started(command, **options)
        status, said = forks.start(run_script, *command[1:], folder=tmp_path).end()
        return subprocess.CompletedProcess(command, status, said)

    started = subprocess.run
    monkeypatch.setattr(subprocess, "run", start)


@pytest.mark.usefixtures("scripts_are_forked")
def test_table_of_methods_continues_cell_by_cell(arguments, monkeypatch, tmp_path, capsys):
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


@pytest.fixture
def criteria(monkeypatch):
    """Return the module of the benchmark of criteria."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("criteria")


@pytest.fixture
def criterion_cases(criteria):
    """Return the module of what that benchmark measures."""
    return importlib.import_module("criterion_cases")


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_criteria_are_measured_beside_the_plain_way(criteria, monkeypatch, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    options = ["--small", "--repeats", "1", "--seconds", "0", "--device", "cpu", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["criteria.py", *options])
    criteria.main()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["criterion"] for row in rows] == list(criteria.NAMES)
    numbers = ("ours_ms", "plain_ms", "ours_mb", "plain_mb")
    assert all(row[number] > 0 for row in rows for number in numbers)
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)


def test_ways_take_turns_for_the_time_asked_for(criteria):
    calls = []
    case = criteria.Case(
        "", 0, lambda: calls.append("o") or [ONE], lambda: calls.append("p") or [ONE]
    )
    row = criteria.measure(case, 3, 0.0, torch.device("cpu"))
    assert "".join(calls) == "po" + "po" + "op" + "po"
    assert row["repeats"] == 3
    assert criteria.measure(case, 1, 0.02, torch.device("cpu"))["repeats"] > 3


def test_plain_way_that_is_too_big_is_not_run(criteria, monkeypatch, capsys):
    def fail():
        raise AssertionError

    case = criteria.Case("big", 9_000_000_000, lambda: [ONE], fail)
    monkeypatch.setattr(criteria, "cases", lambda *args, **kwargs: [case])
    monkeypatch.setattr(sys, "argv", ["criteria.py", "--criteria", "rkd", "--seconds", "0"])
    criteria.main()
    assert "| not run | |" in capsys.readouterr().out


def test_every_criterion_is_measured(criterion_cases):
    measured = {method.criterion for method in criterion_cases.METHODS.values()}
    assert measured == {cls.__name__ for cls in discover()}


def test_plain_ways_have_the_same_losses_and_gradients(criterion_cases, in_float64):
    for name in criterion_cases.NAMES:
        torch.manual_seed(0)
        (case,) = criterion_cases.cases(name, torch.device("cpu"), small=True)
        # CRD's negatives are all samples of other classes: it is the same however they are drawn.
        plain, ours = case.plain(), case.ours()
        torch.testing.assert_close(plain, ours, msg=lambda text, name=name: f"{name}: {text}")


def test_peak_is_what_is_in_use_at_once(criteria):
    def step():
        both = torch.ones(1_000_000), torch.ones(500_000)  # 4 bytes each
        del both
        return [torch.ones(1_000_000)]

    assert criteria.peak(step, torch.device("cpu"))[0] == pytest.approx(6, rel=0.01)


def test_overhead_of_detection_is_measured(monkeypatch, capsys):
    pytest.importorskip("detectron2")
    few = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20"]
    options = ["--methods", "dkd", "--pairs", "1", "--warmup", "0", "--size", "64", "--profile"]
    monkeypatch.setattr(sys, "argv", ["det_step.py", *options, "--", *few])
    runpy.run_path(str(ROOT / "benchmarks/det_step.py"), run_name="__main__")
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert 0 < result["own_ms"] < result["ours_ms"]
    assert result["ratio"] > 0
    assert 0 < result["profile"]["teacher's backbone, all of it"] < 1
    assert len(result["profile"]) == 9


@pytest.fixture
def reid_ranking(monkeypatch):
    """Return the module of the benchmark of ranking."""
    pytest.importorskip("torchreid")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("reid_ranking")


@pytest.mark.usefixtures("scripts_are_forked")
def test_ranking_is_measured_beside_torchreid(reid_ranking, monkeypatch, tmp_path, capsys):
    out = tmp_path / "report.json"
    options = ["--small", "--repeats", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["reid_ranking.py", *options])
    in_own_process = reid_ranking.measure

    def measure(part, args):
        if part.endswith("alone"):  # its memory is measured
            return in_own_process(part, args)
        size = reid_ranking.SMALL[part]
        return {**size._asdict(), **reid_ranking.PARTS[part](size, args.repeats)}

    monkeypatch.setattr(reid_ranking, "measure", measure)
    assert reid_ranking.main() == 0
    report = json.loads(out.read_text())
    for part in ("ranking", "reranking"):
        beside, alone = report[part], report[f"{part}_alone"]
        assert beside["difference"] < 1e-6
        assert beside["ratio"] == pytest.approx(beside["theirs_s"] / beside["ours_s"])
        assert 0.1 < alone["imports_gib"] < alone["inputs_gib"] <= alone["peak_gib"] < 3
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(reid_ranking.PARTS) + len(reid_ranking.LIMITS)


@pytest.mark.parametrize("miss", [None, 0, 1, 2, 3, 4])
def test_a_limit_that_is_missed_fails_the_benchmark_of_ranking(
    reid_ranking, monkeypatch, capsys, miss
):
    sizes = {"queries": 1, "gallery": 1, "ours_s": 1.0}
    report = {part: dict(sizes) for part in reid_ranking.PARTS}
    for number, limit in enumerate(reid_ranking.LIMITS):
        least, most = (0.99, 1.01) if number == miss else (1, 1)
        report[limit.part][limit.number] = limit.least * least or limit.most * most
    monkeypatch.setattr(reid_ranking, "measure", lambda part, args: report[part])
    monkeypatch.setattr(sys, "argv", ["reid_ranking.py"])
    assert reid_ranking.main() == (miss is not None)
    assert capsys.readouterr().out.count("| NO |") == (miss is not None)


def test_equal_distances_are_moved_apart_in_their_order(reid_ranking):
    distance = torch.randint(20, (4, 50), generator=torch.Generator().manual_seed(0)) / 7
    apart = reid_ranking.untied(distance)
    assert all(len(row.unique()) == 50 for row in apart)
    torch.testing.assert_close(apart, distance, rtol=1e-5, atol=1e-40)
    far = distance[:, :, None] < distance[:, None]
    assert (apart[:, :, None] < apart[:, None])[far].all()
