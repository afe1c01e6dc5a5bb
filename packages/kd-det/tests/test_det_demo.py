"""The demo compares a student with and without its teacher, and leaves files behind."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from multiprocessing import get_context, set_forkserver_preload

import pytest
import torch
from kd_core.errors import RunError

pytest.importorskip("detectron2")
from kd_det import demo, demo_runs
from kd_det.demo_runs import side_by_side
from kd_det.demo_summary import gain
from kd_det.synthetic.shapes import register_shapes
from kd_det.train import main


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Make the demo a matter of seconds: two iterations, a few images, a cache of its own."""
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "CONFIGS", shutil.copytree(demo.CONFIGS, tmp_path / "configs"))
    for file in (tmp_path / "configs").glob("*.yaml"):
        text = re.sub(r"MAX_ITER: \d+", "MAX_ITER: 2", file.read_text())
        file.write_text(re.sub(r"WARMUP_ITERS: \d+", "WARMUP_ITERS: 1", text))
    few = partial(register_shapes, num_train=8, num_few=4, num_val=2)
    monkeypatch.setattr(demo, "register_shapes", few)
    forget()
    yield
    forget()


def forget():
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for name in ("shapes_train", "shapes_few", "shapes_val"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)


def test_demo_ends_with_a_table_and_a_picture(small, tmp_path, capsys, monkeypatch, drawn_curves):
    monkeypatch.setattr("kd_det.running.progress.gpu_memory", lambda device: "2 GB")
    assert main(["--work-dir", "runs/demo", "--seeds", "0", "1"]) == 0
    shown, told = capsys.readouterr()
    assert "student, seed 1  iteration 2/2  done  2 GB" in told  # a pipe gets lines
    assert (tmp_path / "runs/demo/curves.png").read_bytes().startswith(b"\x89PNG")
    assert "teacher" in shown
    assert "student + FitNet" in shown
    assert "in 0 of 2 seeds" in shown  # nothing is learned in two iterations
    summary = json.loads((tmp_path / "runs/demo/demo.json").read_text())
    for student in summary["students"].values():
        assert student["seeds"] == [0, 1]
        assert student["last"]["AP50"]["n"] == 2
    assert (tmp_path / "runs/demo/predictions.png").stat().st_size > 10_000
    # A second run with --resume reads what is there.
    (teacher,) = (tmp_path / "runs/teachers").iterdir()
    before = (teacher / "model_final.pth").stat().st_mtime_ns
    assert main(["--work-dir", "runs/demo", "--seeds", "0", "1", "--resume"]) == 0
    assert (teacher / "model_final.pth").stat().st_mtime_ns == before
    capsys.readouterr()
    # Nothing finished is taken for another config's, nor from a damaged file.
    again = ["--work-dir", "runs/demo", "--seeds", "0", "1", "--resume"]
    assert main([*again, "SOLVER.BASE_LR", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "runs/demo/student/seed-0 was made by another config: SOLVER.BASE_LR is" in said
    shutil.copy(tmp_path / "runs/demo/student/seed-0/result.json", teacher / "result.json")
    assert main(again) == 2
    assert "result.json is not of the run in its folder" in capsys.readouterr().err
    (teacher / "result.json").write_text("null")
    assert main(again) == 2
    assert f"{teacher.name}/result.json: damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_side_by_side_give_what_runs_one_by_one_give(small, tmp_path, monkeypatch):
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert main(["--work-dir", f"{threads}/demo", "--seeds", "0"]) == 0
    for name in ("student", "student_FitNet"):
        files = [tmp_path / f"{threads}/demo/{name}/model_final.pth" for threads in (1, 2)]
        alone, beside = (torch.load(file, weights_only=True)["model"] for file in files)
        assert all(torch.equal(alone[key], beside[key]) for key in alone)


ENDS = """
import time
from kd_core.errors import RunError
from kd_det.running.progress import State

def long(show):
    for done in range(10_000):
        show(State("student, seed 0", 0, done, 10_000))
        time.sleep(0.05)

def failing(show):
    raise RunError("its loss is not finite")
"""


def test_a_run_that_fails_ends_those_beside_it(tmp_path, monkeypatch):
    file = tmp_path / "ends.py"  # a module that other processes find too
    file.write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    ends = importlib.import_module(file.stem)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    # Processes that get what spawned ones do, of which only one imports torch, for both.
    monkeypatch.setattr(demo_runs, "get_context", lambda kind: get_context("forkserver"))
    set_forkserver_preload([demo_runs.__name__])
    began = time.monotonic()
    with pytest.raises(RunError, match="its loss is not finite"), side_by_side("cpu", int) as run:
        run([ends.long, ends.failing])
    assert time.monotonic() - began < 300  # the other one takes 500 seconds


KILLED = """
import time
from kd_det.demo_runs import side_by_side
from kd_det.running.progress import State

def told(show):
    print(os.getpid(), flush=True)
    show(State("student, seed 0", 0, 0, 1))
    return {}

def long(show):
    print(os.getpid(), flush=True)
    time.sleep(1000)

if __name__ == "__main__":
    import torch

    torch.set_num_threads(2)
    with side_by_side("cpu", int) as run:
        run([told, long])
"""


@pytest.mark.slow
def test_processes_end_with_the_one_that_waits_for_them_whether_they_work_or_not(tmp_path):
    (tmp_path / "killed.py").write_text("import os" + KILLED)
    with subprocess.Popen(
        [sys.executable, "killed.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as parent:
        children = [int(parent.stdout.readline()) for _ in range(2)]  # one is idle, one at work
        parent.kill()
    ends = time.monotonic() + 60
    while any(map(is_there, children)):
        assert time.monotonic() < ends
        time.sleep(0.1)


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_gain_is_that_of_each_seed():
    def results(*scores):
        return [{"last": {"AP50": score}} for score in scores]

    shown = gain(results(40, 42, 38), results(45, 50, 37))
    assert shown.startswith("the teacher adds +4.0 ± 4.6 AP50, in 2 of 3 seeds")
    assert "one seed says little" in gain(results(40), results(45))


@pytest.mark.parametrize("seeds", [["0", "0"], ["-1"]])
def test_demo_takes_only_seeds_that_differ_and_fix_something(seeds, capsys):
    assert main(["--seeds", *seeds]) == 2
    assert "--seeds" in capsys.readouterr().err


def test_demo_takes_no_arguments_of_a_config(capsys):
    for option in (
        *(["--eval-only"], ["--dry-run"], ["--list-taps"], ["--num-gpus", "2"]),
        *(["--num-machines", "2"], ["--machine-rank", "1"], ["--dist-url", "tcp://1.2.3.4:5"]),
        *(["--register", "a=b:c"], ["--register-images", "a=b"]),
    ):
        assert main(option) == 2
        (told,) = capsys.readouterr().err.splitlines()
        assert f"{option[0]} has no effect on the demo" in told
