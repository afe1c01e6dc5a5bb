"""How far a run of the demo is: a bar on a terminal, lines elsewhere."""

import time

import torch
from detectron2.engine import HookBase
from kd_core.runtime.console import err, time_left
from kd_core.training.peak_memory import gpu_memory
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ShowProgress(HookBase):
    """Shows how many iterations are done, the remaining time and, on a GPU, the memory of steps.

    Args:
        label: Of the run.
        device: Where it trains.
        seconds: Longest silence where no bar is shown.
    """

    def __init__(self, label: str, device: torch.device, *, seconds: float = 60.0) -> None:
        self.label, self.device, self.seconds = label, device, seconds
        self._bar: Progress | None = None
        self._began = self._said = 0.0

    def before_train(self) -> None:
        """Start the clock, and show the bar."""
        self._began = self._said = time.monotonic()
        if err.is_terminal:
            self._bar = Progress(
                *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
                *(TimeRemainingColumn(), TextColumn("{task.fields[memory]}")),
                console=err,
            )
            total, done = self.trainer.max_iter, self.trainer.start_iter
            self._bar.add_task(self.label, total=total, completed=done, memory="")
            self._bar.start()

    def after_step(self) -> None:
        """Move the bar, or break a long silence."""
        done, total = self.trainer.iter + 1, self.trainer.max_iter
        if self._bar is not None:
            memory = gpu_memory(self.device)
            self._bar.update(self._bar.task_ids[0], completed=done, memory=memory)
        elif done == total or time.monotonic() - self._said > self.seconds:
            self._said = time.monotonic()
            left = time_left(self._said - self._began, done - self.trainer.start_iter, total - done)
            words = (self.label, f"iteration {done}/{total}", left, gpu_memory(self.device))
            err.print("  ".join(filter(None, words)))

    def after_train(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
