"""What training took of memory is told, and stands in the result."""

from types import SimpleNamespace

import pytest
import torch
from kd_core.training import peak_memory
from kd_core.training.peak_memory import FIRST_STEPS, PeakMemoryHook, peak_of_process


class Allocator:
    """The part of torch.cuda that counts: now so many bytes, at most so many since the reset."""

    def __init__(self, monkeypatch):
        self.now = self.most = 0
        memory = SimpleNamespace(total_memory=80 * 10**9)
        for name, function in (
            ("reset_peak_memory_stats", lambda device: setattr(self, "most", self.now)),
            ("max_memory_allocated", lambda device: self.most),
            ("max_memory_reserved", lambda device: 2 * self.most),
            ("get_device_properties", lambda device: memory),
        ):
            monkeypatch.setattr(torch.cuda, name, function)

    def take(self, count):
        self.most = max(self.most, self.now + count)


@pytest.fixture
def allocator(monkeypatch):
    # The result is a number in this process: a device is only asked for its kind.
    monkeypatch.setattr(torch, "tensor", lambda value, device: torch.LongTensor([value]).sum())
    return Allocator(monkeypatch)


def epochs(hook, allocator, steps, *, done=0, evaluation=0):
    """Call a hook as the trainer would, in epochs of two steps of so many bytes each."""
    trainer = SimpleNamespace(total_steps=done + len(steps), steps_done=done)
    hook.before_train(trainer)
    for first in range(0, len(steps), 2):
        hook.before_epoch(trainer)
        for count in steps[first : first + 2]:
            allocator.take(count)
            hook.after_step(trainer)
        hook.after_epoch(trainer)
        allocator.take(evaluation)


@pytest.mark.parametrize(("steps", "told"), [(2, 0), (FIRST_STEPS + 3, 1)])
def test_a_gpu_tells_a_step_once_and_keeps_the_largest(allocator, capsys, steps, told):
    hook = PeakMemoryHook(torch.device("cuda"))
    sizes = [10**9] * FIRST_STEPS + [3 * 10**9] * 3
    epochs(hook, allocator, sizes[:steps], done=5, evaluation=9 * 10**9)
    said = capsys.readouterr().err
    assert said.count("peak memory of a step") == 1
    assert "1.00 GB allocated, 2.00 GB reserved, of 80.00 GB" in said
    assert hook.memory.result() == {"of": peak_memory.ON_GPU, "bytes": (3 if told else 1) * 10**9}


def test_a_run_without_a_step_has_measured_nothing(allocator, capsys):
    hook = PeakMemoryHook(torch.device("cuda"))
    epochs(hook, allocator, [], done=5)
    assert hook.memory.result()["bytes"] is None
    assert not capsys.readouterr().err


def test_on_a_cpu_it_is_the_process_and_nothing_is_printed(capsys):
    hook = PeakMemoryHook(torch.device("cpu"))
    result = hook.memory.result()
    assert result["of"] == peak_memory.ON_CPU
    assert result["bytes"] == pytest.approx(peak_of_process(), rel=0.01)  # kept roughly by Linux
    assert 64 * 2**20 < result["bytes"] < 2**40  # torch alone is larger
    assert not capsys.readouterr().err


def test_without_proc_the_system_is_asked(monkeypatch):
    def nothing(*_, **__):
        raise FileNotFoundError

    known = peak_of_process()
    monkeypatch.setattr(peak_memory, "open", nothing, raising=False)
    assert known / 4 < peak_of_process() < 4 * known
