"""A run that was killed in the middle of an epoch and resumed ends like one that was not."""

import contextlib
import io
import json
import signal
import time
from pathlib import Path

import pytest
import torch
from kd_cls.models import build_model
from kd_cls.train import main

ROOT = Path(__file__).parents[1]
STEPS = 40  # an epoch's
TINY = """
data = dict(type="kd_cls.data.synthetic", num_train=160, num_test=30, batch_size=4)
teacher = dict(weights="{{ fileDirname }}/teacher.pth")
schedule = dict(warmup_epochs=1)
trainer = dict(epochs=2, eval_every=2, ema=0.9, allow_weak_teacher=True)
"""
EVERY_STEP = ["--cfg-options", "trainer.save_minutes=0"]


def given(folder, *arguments):
    """Return the arguments for the demo's DKD config, made tiny by the one beside the folder."""
    configs = ["configs/demo/dkd.py", str(folder.parent / "tiny.py")]
    return [*configs, "--work-dir", str(folder), *arguments]


def run_tool(arguments):
    """Run the tool where its configs are; return the status."""
    with contextlib.chdir(ROOT):
        return main(arguments)


def run_to_the_end(folder, *arguments):
    """Run the tool in this process; return its status, and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        return run_tool(given(folder, *arguments)), said.getvalue()


def position(folder):
    """Return finished epochs and steps of the checkpoint; nothing was done if there is none."""
    if not (folder / "last.pth").is_file():
        return 0, 0
    state = torch.load(folder / "last.pth", weights_only=True)
    return state["epoch"], state["step_in_epoch"]


def is_inside(epoch, step):
    """Return whether this is in the second epoch, with steps left in it."""
    return epoch == 1 and 2 <= step <= STEPS - 4


def pause_inside_an_epoch(processes):
    """Stop each process (by folder) at such a moment; it can then be killed or continued."""
    deadline = time.monotonic() + 120
    running = dict(processes)
    while running and time.monotonic() < deadline:
        for folder, process in list(running.items()):
            assert not process.has_ended(), process.end()
            if is_inside(*position(folder)):
                process.send(signal.SIGSTOP)
                if is_inside(*position(folder)):
                    del running[folder]
                else:
                    process.send(signal.SIGCONT)
        time.sleep(0.05)
    assert not running


@pytest.fixture(scope="module")
def runs(tmp_path_factory, forks):
    """Kill one run, terminate another, resume both, and run once through."""
    folder = tmp_path_factory.mktemp("runs")
    whole, killed, stopped = (folder / name for name in ("whole", "killed", "stopped"))
    found = {"folder": folder}
    (folder / "tiny.py").write_text(TINY)
    torch.manual_seed(0)
    torch.save(build_model("resnet20", num_classes=10).state_dict(), folder / "teacher.pth")
    cut = {
        path: forks.start(run_tool, given(path, *EVERY_STEP), folder=folder)
        for path in (killed, stopped)
    }
    try:
        pause_inside_an_epoch(cut)
        cut[killed].kill()
        cut[stopped].send(signal.SIGTERM)
        cut[stopped].send(signal.SIGCONT)
        for path, process in cut.items():
            status, said = process.end(60)
            product = (path / "student.pth").exists()
            found[path.name] = status, said, position(path), product
    finally:
        for process in cut.values():
            process.kill()
    for path in (killed, stopped):
        found[f"{path.name} to the end"] = run_to_the_end(path, "--resume")
    found["whole to the end"] = run_to_the_end(whole)
    return found


def weights(runs, name):
    return torch.load(runs["folder"] / name / "student.pth", weights_only=True)


def log(runs, name):
    lines = (runs["folder"] / name / "log.jsonl").read_text().splitlines()
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def test_the_kill_came_in_the_middle_of_an_epoch(runs):
    status, _, reached, product = runs["killed"]
    assert status == -signal.SIGKILL
    assert is_inside(*reached)
    assert not product


def test_sigterm_saves_after_the_step_exits_with_143_and_says_how_to_resume(runs):
    status, said, (epoch, step), product = runs["stopped"]
    assert status == 128 + signal.SIGTERM
    assert "--resume" in said
    assert "Traceback" not in said
    assert epoch == 1
    assert 0 < step < STEPS
    assert not product


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_the_resumed_run_equals_the_whole_one_bit_for_bit(runs, name):
    for status, said in (runs["whole to the end"], runs[f"{name} to the end"]):
        assert status == 0, said
    assert "resumed" in said
    expected, found = weights(runs, "whole"), weights(runs, name)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_its_log_equals_that_of_the_whole_run_without_gap_or_repeat(runs, name):
    assert [record["epoch"] for record in log(runs, name)] == [1, 2]
    assert log(runs, name) == log(runs, "whole")


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_its_result_equals_that_of_the_whole_run(runs, name):
    results = [
        json.loads((runs["folder"] / each / "result.json").read_text()) for each in ("whole", name)
    ]
    for key in ("last", "best", "epochs", "seed", "data_seed", "teachers"):
        assert results[0][key] == results[1][key]
