"""How far the runs of the demo are: a bar for each on a terminal, lines elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.engine import HookBase
from kd_core.runtime.console import err, time_left
from kd_core.training.peak_memory import gpu_memory
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        label: Of the run.
        first: The iteration at which this process started.
        done: Iterations that are done.
        length: All iterations.
        memory: On a GPU, what its steps took, for people.
    """

    label: str
    first: int
    done: int
    length: int
    memory: str = ""


Show = Callable[[State], None]


class ReportProgress(HookBase):
    """Reports how far a training run is, after every iteration.

    Args:
        label: Of the run.
        device: Where it trains.
        show: Takes what is reported.
    """

    def __init__(self, label: str, device: torch.device, show: Show) -> None:
        self._label, self._device, self._show = label, device, show

    def before_train(self) -> None:
        """Report where the run starts."""
        self._report(self.trainer.start_iter)

    def after_step(self) -> None:
        """Report that an iteration is done."""
        self._report(self.trainer.iter + 1)

    def _report(self, done: int) -> None:
        memory = gpu_memory(self._device)
        first, length = self.trainer.start_iter, self.trainer.max_iter
        self._show(State(self._label, first, done, length, memory))


class Board:
    """Shows iterations, the remaining time and GPU memory of several runs; a context.

    Args:
        seconds: Longest silence about a run where no bar is shown.
    """

    def __init__(self, *, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._bars: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._times: dict[str, tuple[float, float]] = {}  # of the start, and of the last line
        if err.is_terminal:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
            more = TimeRemainingColumn(), TextColumn("{task.fields[memory]}")
            self._bars = Progress(*columns, *more, console=err)

    def __enter__(self) -> "Board":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, state: State) -> None:
        """Move a run's bar, or break a long silence about it."""
        if self._bars is not None:
            if state.label not in self._tasks:
                new = self._bars.add_task(state.label, total=state.length, memory="")
                self._tasks[state.label] = new
            task = self._tasks[state.label]
            self._bars.update(task, completed=state.done, memory=state.memory)
            return
        now = time.monotonic()
        began, said = self._times.setdefault(state.label, (now, now))
        if state.done == state.length or now - said > self._seconds:
            self._times[state.label] = began, now
            left = time_left(now - began, state.done - state.first, state.length - state.done)
            words = state.label, f"iteration {state.done}/{state.length}", left, state.memory
            err.print("  ".join(filter(None, words)))
