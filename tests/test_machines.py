"""Processes of several machines are killed and started again, and end as if they had not been."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from kd_cls.train import main
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

STEPS = 4  # an epoch's
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
teacher = dict(network=dict(type="own_nets.plain"), weights="random")
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=3, ema=0.9, loggers=[], save_minutes=0, log_every=1,
               hooks=[dict(type="own_nets.Kill")])
"""
SETS = {"noisy": 30, "plain": 32}  # images: the last batch of one has parts of 3
TOGETHER = ["--share-teacher", "--seeds", "0", "1", "--cfg-options", "data_seed=4"]


def train(config, name, *more):
    """Run the tool in the folder of its configs; return the status."""
    return main([f"{config}.py", "--work-dir", f"runs/{name}", *more])


def work(*arguments):
    """Do what a worker of torchrun does; it ends with the tool's status."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # forked off its agent, it has the agent's
    torch.set_num_threads(1)
    if os.environ["RANK"] == "0" and Path("restarted").exists():
        time.sleep(1)  # the other finds what the last attempt has left in torchrun's store
    sys.exit(train(*arguments))


def torchrun(port, *arguments):
    """Be torchrun on one of two nodes; workers are forked, so that none imports torch."""
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    config, _, _ = config_from_args(parse_args([*options, *meeting, "tools/cls_train.py"]))
    config.start_method, config.monitor_interval = "fork", 0.1
    elastic_launch(config, entrypoint=work)(*arguments)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def in_two(forks, folder, *arguments):
    """Run the tool in two processes; return their statuses, and all that they say."""
    ended = [rank.end(100) for rank in forks.start_ranks(train, *arguments, folder=folder)]
    return [status for status, _ in ended], "".join(said for _, said in ended)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forks):
    """Run each config in two processes, undisturbed."""
    folder = tmp_path_factory.mktemp("machines")
    (folder / "own_nets.py").write_text(NETS)
    for network, images in SETS.items():
        (folder / f"{network}.py").write_text(CONFIG.format(network=network, images=images))
        statuses, said = in_two(forks, folder, network, network)
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
    return torch.load(Path("runs", run, name), weights_only=True)


def log(run):
    lines = Path("runs", run, "log.jsonl").read_text().splitlines()
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
    given = (port, "noisy", "restarted", "--auto-resume")
    nodes = [forks.start(torchrun, *given, folder=here) for _ in range(2)]
    said = ""
    for status, text in [node.end(200) for node in nodes]:
        assert status == 0, text
        said += text
    assert Path("restarted").exists()
    assert "runs/restarted has no run to resume: this one starts" in said
    assert "last.pth after 1 epochs and 2 steps" in said
    assert_same("restarted", "noisy")


def test_fewer_processes_continue_what_more_began(here, forks, capsys):
    assert train("plain", "alone") == 0
    Path("armed-0").touch()
    statuses, said = in_two(forks, here, "plain", "fewer", "--auto-resume")
    assert statuses == [-signal.SIGKILL, 1]
    assert "rank 0 of 2" in said
    assert train("plain", "fewer", "--auto-resume") == 0
    assert "last.pth after 1 epochs and 2 steps" in capsys.readouterr().err
    assert_alike("fewer", "alone")
    assert_alike("plain", "alone")


def assert_alike(run, other):
    """Compare weights and losses up to rounding."""
    for name, value in weights("student.pth", other).items():
        torch.testing.assert_close(weights("student.pth", run)[name], value, rtol=1e-4, atol=1e-5)
    for one, two in zip(log(run), log(other), strict=True):
        assert one["loss_kd"] == pytest.approx(two["loss_kd"], rel=1e-4)
