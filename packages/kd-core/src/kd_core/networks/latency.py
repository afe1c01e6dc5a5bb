"""How long networks take for a batch of images, measured in turns."""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from kd_core.runtime.console import err

_WARM_UP = 3  # calls of each before any is measured
_FEWEST = 3  # calls of each, whatever they take

Name = TypeVar("Name", bound=Hashable)
Call = Callable[[], Any]


class Timed(NamedTuple):
    """What is measured.

    Attributes:
        run: Takes images [N, *shape], float32 on the CPU.
        shape: Channels, height and width of an image.
    """

    run: Callable[[Tensor], Any]
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    """How latencies are measured, on the CPU.

    Args:
        batch_sizes: Each is measured by itself, in this order.
        repeats: Calls of each network and batch size, after a warm-up.
        seconds: A network may take about so long, all batch sizes together; then there are fewer
            calls, or a batch size is left out, which is said.
        threads: Of a call; None takes PyTorch's number.
    """

    batch_sizes: tuple[int, ...] = (1, 32)
    repeats: int = 100
    seconds: float = 10.0
    threads: int | None = None

    @property
    def thread_count(self) -> int:
        """Return the number of threads."""
        return self.threads or torch.get_num_threads()


class Latency(NamedTuple):
    """Time of a call in ms: median and 95th percentile, over a number of calls."""

    p50: float
    p95: float
    calls: int


def measure(timed: Mapping[Name, Timed], plan: Plan) -> dict[Name, dict[int, Latency]]:
    """Measure networks in turns: one call of each, then the next of each, in changing order.

    So what else the machine does in between hurts all of them alike.

    Returns:
        By name and batch size; a batch size that would take too long is missing.
    """
    found: dict[Name, dict[int, Latency]] = {name: {} for name in timed}
    if not timed:
        return found
    end = time.perf_counter() + plan.seconds * len(timed)
    expected = 0.0  # seconds of one call of each, for one image
    with _using_threads(plan.thread_count), torch.inference_mode():
        for place, size in enumerate(plan.batch_sizes):
            left = end - time.perf_counter()
            if (least := expected * size * (_FEWEST + 1)) > left:
                err.print(
                    f"latency: batch {size} is not measured: it would take {least:.0f} s or more, "
                    f"{max(left, 0):.0f} s are left"
                )
                continue
            err.print(f"latency: batch {size}, {len(timed)} networks in turns, up to {left:.0f} s")
            calls = {name: _call(one, size) for name, one in timed.items()}
            seconds = left / (len(plan.batch_sizes) - place)
            for name, times in _in_turns(calls, plan.repeats, seconds).items():
                p50, p95 = np.percentile(times, [50, 95])
                found[name][size] = Latency(1000 * float(p50), 1000 * float(p95), len(times))
            expected = sum(latency[size].p50 for latency in found.values()) / 1000 / size
    return found


def _call(timed: Timed, size: int) -> Call:
    images = torch.rand(size, *timed.shape, generator=torch.Generator().manual_seed(0))
    return lambda: timed.run(images)


def _in_turns(
    calls: Mapping[Name, Call], repeats: int, seconds: float
) -> dict[Name, Sequence[float]]:
    """Return the seconds of every call: `repeats`, or fewer where the time is over."""
    end = time.perf_counter() + seconds
    times: dict[Name, list[float]] = {name: [] for name in calls}
    for number in range(_WARM_UP):
        if number and time.perf_counter() > end - 0.8 * seconds:
            break
        for call in calls.values():
            call()
    for number in range(max(repeats, 1)):
        if number >= _FEWEST and time.perf_counter() > end:
            break
        for name in list(calls)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    return dict(times)


@contextmanager
def _using_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
