"""Runs beside one another: none loses, mixes or takes another's; `--slow` tries 60 pairs."""

import json
import signal
import stat
import time

import pytest
import torch
from kd_cls import adapter, deployment, export, train  # noqa: F401  what they import late
from kd_core.files.claim import is_claimed

NETWORK = 'network=dict(type="kd_cls.models.build_model", name="resnet8")'
TEACHER = f"""
data = dict(type="kd_cls.data.synthetic", num_train=24, num_test=8, batch_size=8, image_size=16)
student = dict({NETWORK})
optimizer = dict(type="torch.optim.SGD", lr=0.05)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=2, loggers=[])
"""
STUDENT = f"""
{TEACHER}
teacher = dict(config="{{{{ fileDirname }}}}/teacher.py")
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
"""
SLOW_STEP = """
import time
from kd_core.training.step import TrainStep

class SlowStep(TrainStep):
    def __call__(self, batches):
        time.sleep(0.4)
        return super().__call__(batches)
"""


TOOLS = {"train": train.main, "export": export.main}


def run(tool, arguments):
    return TOOLS[tool](arguments)


class Runs:
    """Starts tools in folders."""

    def __init__(self, forks):
        self.forks = forks

    def start(self, folder, tool, *arguments, umask=0o022):
        return self.forks.start(run, tool, arguments, folder=folder, umask=umask)


@pytest.fixture(scope="module")
def runs(forks):
    return Runs(forks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, runs):
    """Return a folder with configs, and `whole/run`, which ran with nothing beside it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "teacher.py").write_text(TEACHER)
    (folder / "student.py").write_text(STUDENT)
    (folder / "slow.py").write_text(SLOW_STEP)
    status, said = runs.start(folder, "train", "student.py", "--work-dir", "whole/run").end()
    assert status == 0, said
    return folder


def said_by(process, text):
    return process.said_in.is_file() and text in process.said_in.read_text()


def wait_until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert not process.has_ended(), process.end()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def differences(whole, folder):
    """Name what a run has other than the one that had nothing beside it."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    found = sorted(files ^ expected)
    for name in {"student.pth", "last.pth", "best.pth"} & files & expected:
        one, other = (torch.load(path / name, weights_only=True) for path in (whole, folder))
        key = {"last.pth": "distiller", "best.pth": "model"}.get(name)
        found += [] if equal(one.get(key, one), other.get(key, other)) else [name]
    if history(folder) != history(whole):
        found.append("log.jsonl")
    return found


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def history(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def pair(runs, folder, work, delay, *arguments):
    """Start one command twice; return what is wrong with the outcome, nothing if all is right.

    Without `--work-dir` both have a folder of their own; with it, one is refused.
    """
    (folder / work).mkdir()
    command = [folder / work, "train", "../student.py", *arguments]
    processes = [runs.start(*command)]
    time.sleep(delay)
    processes.append(runs.start(*command))
    ended = [process.end() for process in processes]
    statuses = sorted(status for status, _ in ended)
    names, expected = ["student", "student-2"], [0, 0]
    if arguments:
        names, expected = ["student"], [0, 2]
        refused = next((said for status, said in ended if status == 2), "")
        if refused.count("\n") != 1 or not ("in use by" in refused or "has a run" in refused):
            return [f"refused with {refused!r}"]
    if statuses != expected:
        return [f"statuses {statuses}", *(said[-500:] for _, said in ended)]
    place = folder / work / "runs"
    wrong = [f"traceback: {said[-500:]}" for _, said in ended if "Traceback" in said]
    for name in names:
        wrong += [f"{name}: {each}" for each in differences(folder / "whole/run", place / name)]
    teachers = list((place / "teachers").iterdir())
    (whole,) = (folder / "whole/teachers").iterdir()
    wrong += [] if [path.name for path in teachers] == [whole.name] else ["several teachers"]
    wrong += [f"teacher: {each}" for each in differences(whole, teachers[0])]
    trained = sum(said.count("training of teacher ─") for _, said in ended)
    wrong += [] if trained == 1 else [f"the teacher was trained {trained} times"]
    if {path.name for path in place.iterdir()} != {*names, "teachers"}:
        wrong.append(f"folders {sorted(place.iterdir())}")
    return wrong


def test_two_at_once_have_two_folders_one_teacher_and_what_each_has_alone(runs, folder):
    assert pair(runs, folder, "two", 0.0) == []


def test_of_two_at_once_in_one_folder_one_is_refused(runs, folder):
    assert pair(runs, folder, "one", 0.0, "--work-dir", "runs/student") == []


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("arguments", [(), ("--work-dir", "runs/student")])
def test_ten_pairs_hold(runs, folder, delay, arguments):
    works = [f"pair-{delay}-{len(arguments)}-{number}" for number in range(10)]
    outcomes = {work: pair(runs, folder, work, delay, *arguments) for work in works}
    wrong = {work: found for work, found in outcomes.items() if found}
    kind = "into one folder" if arguments else "into a folder each"
    print(f"two commands, {delay} s apart, {kind}: 10 tried, {10 - len(wrong)} held")
    assert wrong == {}


def test_resume_beside_a_live_run_is_refused_and_takes_over_once_that_is_killed(runs, folder):
    (folder / "slowly.py").write_text("trainer = dict(step=dict(type='slow.SlowStep'))")
    command = ["train", "student.py", "slowly.py", "--work-dir", "killed/run"]
    first = runs.start(folder, *command, "--cfg-options", "trainer.save_minutes=0")
    place = folder / "killed/run"
    try:
        wait_until(lambda: (place / "last.pth").is_file(), first)
        first.send(signal.SIGSTOP)  # a stopped run is alive
        before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
        status, said = runs.start(folder, *command, "--resume").end()
        assert status == 2
        assert said.count("\n") == 1
        assert f"killed/run is in use by another run: process {first.pid} on" in said
        assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    finally:
        first.kill()
    claim = json.loads(next(place.glob(".claim-*")).read_text())
    assert claim["pid"] == first.pid
    left = "-".join(str(claim[part]) for part in ("machine", "pid", "start"))
    (place / f".last.pth.{left}-9.tmp").write_bytes(b"half")
    status, said = runs.start(folder, *command, "--resume").end()
    assert status == 0, said
    assert "resumed" in said
    assert differences(folder / "whole/run", place) == []


def test_who_waits_for_a_teacher_trains_it_when_the_first_is_killed(runs, folder):
    slow = 'trainer["step"] = dict(type="slow.SlowStep")'
    work = folder / "waits"
    work.mkdir()
    for name, text in {"teacher": TEACHER + slow, "student": STUDENT, "slow": SLOW_STEP}.items():
        (work / f"{name}.py").write_text(text)
    first = runs.start(work, "train", "student.py", "--work-dir", "runs/a")
    second = None
    try:
        wait_until(lambda: any(map(is_claimed, work.glob("runs/teachers/*"))), first)
        second = runs.start(work, "train", "student.py", "--work-dir", "runs/b")
        wait_until(lambda: said_by(second, "waiting for"), second)
        first.kill()
        status, said = second.end()
    finally:
        for process in filter(None, (first, second)):
            process.kill()
    assert status == 0, said
    assert said.count("training of teacher: waiting for process") == 1
    assert f"process {first.pid} on" in said
    assert differences(folder / "whole/run", work / "runs/b") == []
    (teacher,) = (work / "runs/teachers").iterdir()
    (whole,) = (folder / "whole/teachers").iterdir()
    assert differences(whole, teacher) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_all_that_a_run_leaves_has_the_permissions_of_the_user_s_umask(runs, folder, umask):
    work = f"umask-{umask:o}/run"
    for command in (["train", "student.py", "--work-dir", work], ["export", work]):
        status, said = runs.start(folder, *command, umask=umask).end()
        assert status == 0, said
    paths = list((folder / work).parent.rglob("*"))
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    wrong = {
        path.relative_to(folder).as_posix(): oct(mode)
        for path, mode in modes.items()
        if mode != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert wrong == {}
    assert {".safetensors", ".pth", ".json", ".jsonl", ".py", ".pt2", ".onnx"} <= {
        path.suffix for path in paths
    }
