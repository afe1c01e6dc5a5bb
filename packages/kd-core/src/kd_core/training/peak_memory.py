"""How much memory training took at most: of the device, or of the process where that is a CPU."""

import resource
import sys
from collections.abc import Iterable
from typing import Any

import torch

from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.training.cuda_graph import WARM_UP
from kd_core.training.hooks import Hook, TrainerLike

ON_GPU = "tensors on the GPU, in training"
ON_CPU = "the process, with libraries and evaluation"

FIRST_STEPS = WARM_UP + 2
"""After so many the optimizer has its state, and a CUDA graph is recorded."""


class PeakMemoryHook(Hook):
    """Measures the memory of training, without evaluation; prints a step's once, on a GPU.

    Placed before the hook that evaluates. It reads what the allocator counted, and waits for
    nothing.

    Args:
        device: Where the run trains.
    """

    for_trainer = False

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._steps, self._bytes, self._told_after = 0, 0, FIRST_STEPS

    def before_train(self, trainer: TrainerLike) -> None:
        """Look how many steps there will be."""
        self._told_after = min(FIRST_STEPS, trainer.total_steps - trainer.steps_done)

    def before_epoch(self, trainer: TrainerLike) -> None:
        """Forget what an evaluation took, but not what was noted."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def after_step(self, trainer: TrainerLike) -> None:
        """Tell what a step takes, after the first few, or the last if there are no more."""
        self._steps += 1
        if self._steps == self._told_after and self.device.type == "cuda":
            self._note()
            if distributed.rank() == 0:
                err.print(f"peak memory of a step: {self._text()}")

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Note the most that a step of the epoch took."""
        if self.device.type == "cuda":
            self._note()

    def result(self) -> dict[str, Any]:
        """Return the most bytes that a process took, and what they were taken of.

        On a GPU None, if the run was resumed after its last step.
        """
        on_gpu = self.device.type == "cuda"
        own = torch.tensor(self._bytes if on_gpu else peak_of_process(), device=self.device)
        most = -int(distributed.reduce_min(-own))
        return {"of": ON_GPU if on_gpu else ON_CPU, "bytes": most or None}

    def _note(self) -> None:
        self._bytes = max(self._bytes, torch.cuda.max_memory_allocated(self.device))

    def _text(self) -> str:
        reserved = torch.cuda.max_memory_reserved(self.device)
        total = torch.cuda.get_device_properties(self.device).total_memory
        each = " of each process" * distributed.is_distributed()
        return (
            f"{in_gb(self._bytes)} allocated, {in_gb(reserved)} reserved, of {in_gb(total)} of "
            f"the device{each}"
        )


def peak_memory(hooks: Iterable[Hook]) -> dict[str, Any]:
    """Return what a run's result says of its memory; all processes must ask."""
    return {"peak_memory": one.result() for one in hooks if isinstance(one, PeakMemoryHook)}


def peak_of_process() -> int:
    """Return the most bytes of memory that this process has held, its libraries included."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            found = [line.split()[1] for line in file if line.startswith("VmHWM:")]
        return 1024 * int(found[0])  # rusage, in Linux, may count the process that started this one
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_gb(count: int) -> str:
    """Return bytes as text."""
    return f"{count / 1e9:.2f} GB"
