"""A run that was killed in the middle of an epoch and resumed ends like one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
STEPS = 20  # an epoch's: 8 labels of each of 10 digits, 4 a batch
OPTIONS = [
    "data.batch_size=4",
    "schedule.warmup_epochs=1",
    "trainer.epochs=3",
    "trainer.eval_every=3",
    "trainer.ema=0.9",
    "teacher.weights=random",
]
EVERY_STEP = ["trainer.save_minutes=0"]


def start(folder, *arguments, options=()):
    """Start the tool on the demo's DKD config."""
    command = [sys.executable, "tools/cls_train.py", "configs/demo/dkd.py", *arguments]
    return subprocess.Popen(
        [*command, "--work-dir", str(folder), "--cfg-options", *OPTIONS, *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def position(folder):
    """Return finished epochs and steps of the checkpoint; nothing was done if there is none."""
    if not (folder / "last.pth").is_file():
        return 0, 0
    state = torch.load(folder / "last.pth", weights_only=True)
    return state["epoch"], state["step_in_epoch"]


def is_inside(epoch, step):
    """Tell whether this is in the second epoch or a later one, with steps left in it."""
    return epoch >= 1 and 2 <= step <= STEPS - 4


def pause_inside_an_epoch(process, folder):
    """Stop the process at such a moment; it may be killed then, or go on."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if is_inside(*position(folder)):
            process.send_signal(signal.SIGSTOP)
            if is_inside(*position(folder)):
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"the run never was inside an epoch:\n{process.communicate()[1]}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run once through, kill one run, terminate another, resume both; two at a time."""
    folder = tmp_path_factory.mktemp("runs")
    whole, killed, stopped = (folder / name for name in ("whole", "killed", "stopped"))
    found = {"folder": folder}
    started = [start(killed, options=EVERY_STEP), start(stopped, options=EVERY_STEP)]
    try:
        pause_inside_an_epoch(started[0], killed)
        started[0].kill()
        pause_inside_an_epoch(started[1], stopped)
        started[1].terminate()
        started[1].send_signal(signal.SIGCONT)
        for name, process in zip(("killed", "stopped"), started, strict=True):
            said = process.communicate(timeout=60)[1]
            found[name] = process.returncode, said, position(folder / name)
            found[f"{name} product"] = (folder / name / "student.pth").exists()
        started += [start(path, "--resume") for path in (killed, stopped)] + [start(whole)]
        for name, process in zip(
            ("killed again", "stopped again", "whole"), started[2:], strict=True
        ):
            said = process.communicate(timeout=120)[1]
            found[name] = process.returncode, said
    finally:
        for process in started:
            process.kill()
    return found


def weights(runs, name):
    return torch.load(runs["folder"] / name / "student.pth", weights_only=True)


def log(runs, name):
    lines = (runs["folder"] / name / "log.jsonl").read_text().splitlines()
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def test_the_kill_came_in_the_middle_of_an_epoch(runs):
    status, _, reached = runs["killed"]
    assert status == -signal.SIGKILL
    assert is_inside(*reached)
    assert not runs["killed product"]


def test_sigterm_saves_after_the_step_exits_with_143_and_says_how_to_go_on(runs):
    status, said, (epoch, step) = runs["stopped"]
    assert status == 128 + signal.SIGTERM
    assert "--resume" in said
    assert "Traceback" not in said
    assert epoch >= 1
    assert 0 < step < STEPS
    assert not runs["stopped product"]


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_the_resumed_run_equals_the_whole_one_bit_for_bit(runs, name):
    for status, said in (runs["whole"], runs[f"{name} again"]):
        assert status == 0, said
    assert "resumed" in runs[f"{name} again"][1]
    expected, found = weights(runs, "whole"), weights(runs, name)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_its_log_equals_that_of_the_whole_run_without_gap_or_repeat(runs, name):
    assert [record["epoch"] for record in log(runs, name)] == [1, 2, 3]
    assert log(runs, name) == log(runs, "whole")


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_its_result_equals_that_of_the_whole_run(runs, name):
    results = [
        json.loads((runs["folder"] / each / "result.json").read_text()) for each in ("whole", name)
    ]
    for key in ("last", "best", "epochs", "seed", "data_seed", "teachers"):
        assert results[0][key] == results[1][key]
