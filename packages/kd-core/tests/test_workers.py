"""Workers that are killed or stopped end the wait for them."""

import gc
import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from kd_core.data.workers import Watched, checked_timeout, outlive_stop_signals
from kd_core.errors import RunError, UserError
from kd_core.runtime import children
from torch.utils.data import DataLoader, Dataset


class Slow(Dataset):
    """Number 4 does something to the worker that is asked for it."""

    def __init__(self, number: int) -> None:
        self.signal = number

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 4:
            time.sleep(0.3)
            os.kill(os.getpid(), self.signal)
            time.sleep(0.1)
        return torch.zeros(3)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize(
    ("number", "seconds", "wanted"),
    [
        (signal.SIGKILL, 60, r"data worker \d+ was killed \(SIGKILL\); .*fewer workers"),
        (
            signal.SIGSTOP,
            0.5,
            r"no batch within 0.5 s \(data worker \d+ is stopped .*\); .*data.worker_timeout",
        ),
    ],
)
def test_a_lost_worker_is_named_in_time_and_none_is_left(number, seconds, wanted, persistent):
    others = set(multiprocessing.active_children())  # of tests before, in the same process
    loader = DataLoader(Slow(number), num_workers=1, persistent_workers=persistent)
    started = time.monotonic()
    with pytest.raises(RunError, match=wanted):
        list(Watched(loader, seconds, "data.worker_timeout"))
    del loader
    for child in set(multiprocessing.active_children()) - others:
        child.join(5)
    assert time.monotonic() - started < 30
    assert set(multiprocessing.active_children()) <= others


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system cannot ask who")
def test_sigterm_ends_a_worker_only_if_its_parent_sends_it():
    options = {"num_workers": 1, "worker_init_fn": outlive_stop_signals}
    assert len(list(Watched(DataLoader(Slow(signal.SIGTERM), **options), 30, "x"))) == 6
    others = set(multiprocessing.active_children())
    batches = iter(DataLoader(Slow(0), **options))
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    with children.left_alone():
        worker.terminate()
        worker.join(5)
    assert worker.exitcode == 128 + signal.SIGTERM


def test_what_all_workers_give_arrives():
    loader = Watched(DataLoader(Slow(0), num_workers=2, persistent_workers=True), 30, "x")
    assert [len(list(loader)) for _ in range(2)] == [6, 6]
    assert len(loader) == 6


def test_workers_end_at_once_with_a_trainer_that_is_garbage_in_a_cycle():
    others = set(multiprocessing.active_children())
    loader = Watched(DataLoader(Slow(0), num_workers=2), 30, "x")
    trainer = SimpleNamespace(loader=loader, batches=iter(loader))
    trainer.hook = SimpleNamespace(trainer=trainer)
    next(trainer.batches)
    assert len(set(multiprocessing.active_children()) - others) == 2
    del loader, trainer
    started = time.monotonic()
    gc.collect()
    assert time.monotonic() - started < 4  # torch waits 5 s for each, then kills it
    assert set(multiprocessing.active_children()) <= others


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "5", True, None])
def test_a_time_that_is_none_is_refused(wrong):
    with pytest.raises(UserError, match="worker_timeout is"):
        checked_timeout(wrong)
