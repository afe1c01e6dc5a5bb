"""Processes of several machines are killed and started again, and end as if they had not been."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from kd_cls.models import build_model
from kd_cls.train import main
from kd_core.runtime import processes
from torch import nn
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

ROOT = Path(__file__).parents[1]
NETS = """
import os, signal
from pathlib import Path
from torch import nn
from kd_core import Hook

def noisy(num_classes):
    middle = (nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5))
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), *middle, nn.Linear(36, num_classes))

def plain(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, num_classes))

class Kill(Hook):
    def before_step(self, trainer):
        armed = Path(f"armed-{os.environ.get('RANK')}")
        if trainer.steps_done == 6 and armed.exists():
            armed.rename("restarted")
            os.kill(os.getpid(), signal.SIGKILL)
"""
CONFIG = """
data = dict(type="kd_cls.data.synthetic", num_train={images}, num_test=6, num_classes=3,
            batch_size=8, image_size=8)
student = dict(network=dict(type="own_nets.{network}"))
teacher = dict(network=dict(type="own_nets.plain"), weights="teacher.pth")
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=3, ema=0.9, loggers=[], save_minutes=0, log_every=1,
               allow_weak_teacher=True, hooks=[dict(type="own_nets.Kill")])
"""
TINY = """
data = dict(type="kd_cls.data.synthetic", num_train=8, num_test=4, batch_size=4)
teacher = dict(weights="{teacher}")
schedule = dict(warmup_epochs=0)
trainer = dict(epochs=1, allow_weak_teacher=True)
"""
SETS = {"noisy": 30, "plain": 32}  # images: the last batch of one has parts of 3
FLIPPED = "data.augment=[{'type': 'kd_cls.data.augment.Flip'}]"
KEPT = ["--cfg-options", "trainer.teacher_cache=True", "data_seed=4"]
TOGETHER = {
    "shared": ["--share-teacher", "--seeds", "0", "1", *KEPT],  # with a table of views
    "stored": [*KEPT, FLIPPED],  # by epoch: a view too many for a table
}
PAGE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(.*) tools/cls_train.py (.*?)(?: && break)?$", PAGE, re.MULTILINE)


def train(config, name, *more):
    """Run the tool in the folder of its configs; return the status."""
    return main([f"{config}.py", "--work-dir", f"{name}", *more])


def train_elsewhere(*arguments):
    """Run the tool as if each process was on another machine."""
    processes._machine = lambda: os.environ["RANK"]
    return train(*arguments)


def train_shown(arguments):
    """Run the tool as the page shows, where its configs are."""
    with contextlib.chdir(ROOT):
        return main(arguments)


def work(*arguments):
    """Do what a worker of torchrun does; it ends with the tool's status."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # forked off its agent, it has the agent's
    torch.set_num_threads(1)
    if os.environ["RANK"] == "0" and Path("restarted").exists():
        time.sleep(1)  # the other finds what the last attempt has left in torchrun's store
    sys.exit(train(*arguments))


def torchrun(port, *arguments):
    """Be torchrun on one of two nodes; workers are forked, so that none imports torch."""
    os.environ["KD_RANK_TIMEOUT"] = "120"  # no process stays behind
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    config, _, _ = config_from_args(parse_args([*options, *meeting, "tools/cls_train.py"]))
    config.start_method, config.monitor_interval = "fork", 0.1
    elastic_launch(config, entrypoint=work)(*arguments)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def in_two(forks, folder, *arguments, function=train):
    """Run the tool in two processes; return their statuses, and all that they say."""
    ended = [rank.end(200) for rank in forks.start_ranks(function, *arguments, folder=folder)]
    return [status for status, _ in ended], "".join(said for _, said in ended)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forks):
    """Run a config in two processes, undisturbed."""
    folder = tmp_path_factory.mktemp("machines")
    (folder / "own_nets.py").write_text(NETS)
    for network, images in SETS.items():
        (folder / f"{network}.py").write_text(CONFIG.format(network=network, images=images))
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 3)
    torch.save(nn.Sequential(*layers).state_dict(), folder / "teacher.pth")
    statuses, said = in_two(forks, folder, "noisy", "runs/whole")
    assert statuses == [0, 0], said
    assert "broadcast_buffers" not in said
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("own_nets", None)


def weights(name, run):
    return torch.load(Path(run, name), weights_only=True)


def log(run):
    lines = Path(run, "log.jsonl").read_text().splitlines()
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def assert_same(one, other):
    for file in ("student.pth", "best.pth"):
        first, second = (weights(file, run) for run in (one, other))
        first, second = first.get("model", first), second.get("model", second)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], value) for name, value in second.items())
    assert log(one) == log(other)


def test_two_nodes_of_torchrun_resume_by_themselves_and_end_bit_for_bit_the_same(here, forks):
    Path("armed-1").touch()
    port = free_port()
    given = (port, "noisy", "runs/restarted", "--auto-resume")
    nodes = [forks.start(torchrun, *given, folder=here) for _ in range(2)]
    said = ""
    for status, text in [node.end(200) for node in nodes]:
        assert status == 0, text
        said += text
    assert Path("restarted").exists()
    assert "runs/restarted has no run to resume: this one starts" in said
    assert "last.pth after 1 epochs and 2 steps" in said
    assert_same("runs/restarted", "runs/whole")


def test_fewer_processes_continue_what_more_began(here, forks, capsys):
    assert train("plain", "one/plain") == 0
    Path("armed-0").touch()
    statuses, said = in_two(forks, here, "plain", "two/plain", "--auto-resume")
    assert statuses == [-signal.SIGKILL, 1]
    assert "another rank than 1 died or left, so training stopped; the same command" in said
    assert train("plain", "two/plain", "--auto-resume") == 0
    assert "last.pth after 1 epochs and 2 steps" in capsys.readouterr().err
    assert_alike("two/plain", "one/plain")


@pytest.mark.parametrize("how", TOGETHER)
def test_one_teacher_serves_two_processes_as_one(here, forks, how):
    statuses, said = in_two(forks, here, "plain", f"two/{how}", *TOGETHER[how])
    assert statuses == [0, 0], said
    assert train("plain", f"one/{how}", *TOGETHER[how]) == 0
    runs = [Path(how, f"seed-{seed}") for seed in (0, 1)] if how == "shared" else [Path(how)]
    for run in runs:
        assert_alike(Path("two", run), Path("one", run))
    assert list(Path("two/teachers").glob({"shared": "cache-*", "stored": "targets-*"}[how]))


@pytest.mark.parametrize(
    ("function", "option", "message"),
    [
        (train_elsewhere, "trainer.teacher_cache=True", "processes on several machines cannot"),
        (train, "trainer.sync_batchnorm=True", "SyncBatchNorm needs GPUs, and these 2 processes"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_in_one_line(
    here, forks, function, option, message
):
    given = ("plain", "refused", "--cfg-options", option)
    statuses, said = in_two(forks, here, *given, function=function)
    assert statuses == [2, 2]
    (line,) = [line for line in said.splitlines() if "error:" in line]
    assert message in line
    assert not Path("refused").exists()


def test_the_page_s_command_under_srun_is_a_distributed_run(here, forks):
    assert [command.split()[-1] for command, _ in COMMANDS[-3:-1]] == ["3", "3"]  # torchrun
    for command, _ in COMMANDS[-3:-1]:
        parse_args([*shlex.split(command)[3:], "tools/cls_train.py"])
    start, text = COMMANDS[-1]
    assert start.split()[0] == "srun"
    assert all(given == text for _, given in COMMANDS[-3:])
    given = shlex.split(text.replace("runs/many", str(here / "many")))
    tiny = here / "tiny.py"
    tiny.write_text(TINY.format(teacher=here / "resnet20.pth"))
    torch.save(build_model("resnet20", num_classes=10).state_dict(), here / "resnet20.pth")
    arguments = [given[0], str(tiny), *given[1:]]
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    job |= {"SLURM_NNODES": "2", "SLURM_NODELIST": "127.0.0.1,other[1-3]", "SLURM_LOCALID": "0"}
    tasks = [
        forks.start(train_shown, arguments, folder=here, SLURM_PROCID=str(rank), **job)
        for rank in range(2)
    ]
    ended = [task.end(200) for task in tasks]
    assert [status for status, _ in ended] == [0, 0], ended
    assert "results in" in ended[0][1]
    assert "results in" not in ended[1][1]
    state = torch.load(here / "many/last.pth", weights_only=True)
    assert len(state["others"]) == 1


def assert_alike(run, other):
    """Compare weights and losses up to rounding."""
    for name, value in weights("student.pth", other).items():  # kept in float16, some of them
        torch.testing.assert_close(weights("student.pth", run)[name], value, rtol=1e-3, atol=1e-4)
    for one, two in zip(log(run), log(other), strict=True):
        assert one["loss_kd"] == pytest.approx(two["loss_kd"], rel=1e-3)
