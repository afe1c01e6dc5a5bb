"""Batches are copied beside the step, in an order that lets neither see half of the other's."""

from contextlib import contextmanager

import pytest
import torch
from kd_core.data.prefetch import SideStream, copier


class Stream:
    """A stream that keeps nothing but the order of what is asked of it."""

    log: list[str]
    events: int

    def __init__(self, name="side"):
        self.name = name

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event}")

    def wait_stream(self, stream):
        self.log.append(f"{self.name} waits for {stream.name}")

    def record_event(self):
        Stream.events += 1
        self.log.append(f"{self.name} records event {self.events}")
        return f"event {self.events}"


@pytest.fixture
def log(monkeypatch):
    """Return what streams and copies do, on a machine with or without a GPU."""
    Stream.log, Stream.events = (log := []), 0

    @contextmanager
    def stream(chosen):
        log.append(f"on {chosen.name}")
        yield
        log.append(f"off {chosen.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("step"))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    for name in ("copy_", "clone"):
        plain = getattr(torch.Tensor, name)

        def logged(tensor, *args, plain=plain, name=name, **options):
            log.append(name)
            return plain(tensor, *args, **options)

        monkeypatch.setattr(torch.Tensor, name, logged)
    return log


def test_copies_wait_for_the_last_batch_and_the_step_for_the_copy(log):
    copy = SideStream(torch.device("cpu"))
    for number in (1, 2, 3):
        copy(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
        if number == 1:  # what used the memory of the buffer before is to be done
            assert log.pop(0) == "step records event 1"
        assert log == [
            f"side waits for event {number}",
            "on side",
            "copy_",
            "off side",
            "step waits for side",
            "clone",
            f"step records event {number + 1}",
        ]
        log.clear()


def test_batches_of_any_size_are_whole_and_stay_whole(log):
    copy = SideStream(torch.device("cpu"))
    shapes = [(4, 3, 5, 5), (4, 3, 5, 5), (1, 3, 5, 5), (0, 3, 5, 5), (6, 3, 5, 5), (6, 3, 2, 7)]
    hosts = [torch.randint(0, 256, shape, dtype=torch.uint8) for shape in shapes]
    copies = [copy(host) for host in hosts]
    assert all(map(torch.equal, copies, hosts))
    assert all(image.is_contiguous() for image in copies)


def test_on_the_host_nothing_is_copied():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert copier(torch.device("cpu"))(images) is images


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_of_the_host_under_load():
    device = torch.device("cuda")
    copy, load = copier(device), torch.randn(2048, 2048, device=device)
    assert isinstance(copy, SideStream)
    hosts = torch.randint(0, 256, (20, 8, 3, 64, 64), dtype=torch.uint8).pin_memory()
    copies = []
    for host in hosts:
        copies.append(copy(host))
        for _ in range(20):
            load = (load @ load).tanh()
    assert torch.equal(torch.stack(copies).cpu(), hosts)
