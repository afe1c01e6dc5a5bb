"""Runs of the demo side by side: on CPUs one run a core is faster than one run on all cores."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait as wait_for
from typing import Any

import torch
from kd_core.errors import RunError
from kd_core.runtime import json_lines

from kd_det.running.progress import Board, Show, State

Call = Callable[[Show], dict[str, Any]]
"""Does one run and returns its result; can be pickled."""


@contextmanager
def side_by_side(
    device: str, register: Callable[[], object]
) -> Iterator[Callable[[Sequence[Call]], list[dict[str, Any]]]]:
    """Give a function that does some runs, shows how far each is, and returns their results.

    On CPUs there are as many processes as torch may use threads, with one thread each; else, or
    with one thread, the runs come one after the other in this process. A run that fails ends all.

    Args:
        device: Where the runs train.
        register: Registers the data sets, in a process that has none; can be pickled.
    """
    count = torch.get_num_threads() if device == "cpu" else 1
    with Board() as board:
        if count == 1:
            yield lambda calls: [call(board.show) for call in calls]
            return
        context = get_context("spawn")
        queue, stop = context.SimpleQueue(), context.Event()
        worker = Worker(queue, stop, json_lines.is_wanted(), register)
        forward = threading.Thread(target=_forward, args=(queue, board), daemon=True)
        pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(worker,))
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
    futures = [pool.submit(_train_run, call) for call in calls]
    for future in wait(futures, return_when=FIRST_EXCEPTION).done:
        future.result()
    return [future.result() for future in futures]


def _forward(queue: Any, board: Board) -> None:
    """Show what the processes report, until None comes."""
    while (state := queue.get()) is not None:
        board.show(state)


@dataclass(frozen=True)
class Worker:
    """What a process of the pool has.

    Attributes:
        queue: Takes the states of its runs.
        stop: Is set when the others end.
        json_lines: Whether programs read this command's stdout.
        register: See `side_by_side`.
    """

    queue: Any
    stop: Any
    json_lines: bool
    register: Callable[[], object]

    def show(self, state: State) -> None:
        """Report how far a run is; leave it when the others ended."""
        if self.stop.is_set():
            raise RunError(f"{state.label}: stopped, since another run failed or was stopped")
        self.queue.put(state)


_worker: list[Worker] = []
"""This process's, in a process of the pool."""


def _begin(worker: Worker) -> None:
    """Prepare a process of the pool, which ends when the one that reads its results is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    worker.register()
    _worker.append(worker)


def _end_with_parent() -> None:
    """Wait for the end of the parent, then end: the pool itself would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is a process of a pool"
    wait_for([parent.sentinel])
    os._exit(1)


def _train_run(call: Call) -> dict[str, Any]:
    """Do one run in a process of the pool."""
    with json_lines.on_stdout(_worker[0].json_lines):
        return call(_worker[0].show)
