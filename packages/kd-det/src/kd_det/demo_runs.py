"""Runs of the demo side by side: on CPUs one run a core is faster than one run on all cores."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any

import torch
from detectron2.engine import HookBase
from kd_core.errors import RunError
from kd_core.runtime.console import err
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[str, int, int], None]
"""Takes the label of a run, its finished iterations and all of them."""

Call = Callable[[Report], dict[str, Any]]
"""Does one run and returns its result; can be pickled."""

_of_worker: list[Report] = []
"""In a process of the pool: what sends a run's progress to the process that shows it."""


class Bars:
    """Shows one bar with the remaining time for every run; a context."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self._progress = Progress(*columns, TimeRemainingColumn(), console=err)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, label: str, done: int, length: int) -> None:
        """Show how far a run is; see `Report`."""
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=length, completed=done)
        self._progress.update(self._tasks[label], completed=done)


class ReportProgress(HookBase):
    """Reports every iteration of a training run."""

    def __init__(self, label: str, report: Report) -> None:
        self._label, self._report = label, report

    def before_train(self) -> None:
        """Report where the run starts."""
        self._report(self._label, self.trainer.start_iter, self.trainer.max_iter)

    def after_step(self) -> None:
        """Report the finished iteration."""
        self._report(self._label, self.trainer.iter + 1, self.trainer.max_iter)


@contextmanager
def side_by_side(
    device: str, register: Callable[[], None]
) -> Iterator[Callable[[Sequence[Call]], list[dict[str, Any]]]]:
    """Give a function that does some runs, with a bar for each, and returns their results in order.

    On CPUs there are as many processes as torch may use threads, with one thread each; else, or
    with one thread, the runs come one after the other in this process. A run that fails ends all.

    Args:
        device: Where the runs train.
        register: Registers the data sets, in a process that has none; can be pickled.
    """
    count = torch.get_num_threads() if device == "cpu" else 1
    with Bars() as bars:
        if count == 1:
            yield lambda calls: [call(bars.show) for call in calls]
            return
        context = get_context("spawn")
        queue, stop = context.SimpleQueue(), context.Event()
        forward = threading.Thread(target=_forward, args=(queue, bars), daemon=True)
        pool = ProcessPoolExecutor(
            count, context, initializer=_begin, initargs=(queue, stop, os.getpid(), register)
        )
        forward.start()
        try:
            yield lambda calls: _results(pool, calls)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            queue.put(None)
            forward.join()


def _results(pool: ProcessPoolExecutor, calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Return the results of calls that the pool does; raise the first error as soon as it comes."""
    futures = [pool.submit(_do, call) for call in calls]
    for future in wait(futures, return_when=FIRST_EXCEPTION).done:
        future.result()
    return [future.result() for future in futures]


def _forward(queue: Any, bars: Bars) -> None:
    """Show what the processes report, until None comes."""
    while (one := queue.get()) is not None:
        bars.show(*one)


def _begin(queue: Any, stop: Event, parent: int, register: Callable[[], None]) -> None:
    """Prepare a process of the pool; it leaves its run when the others stop or are killed."""
    torch.set_num_threads(1)
    register()

    def report(label: str, done: int, length: int) -> None:
        if os.getppid() != parent:
            os._exit(1)  # nobody would ever read the result
        if stop.is_set():
            raise RunError(f"{label}: stopped, because another run ended or Ctrl-C was pressed")
        queue.put((label, done, length))

    _of_worker.append(report)


def _do(call: Call) -> dict[str, Any]:
    """Do one run in a process of the pool."""
    return call(_of_worker[0])
