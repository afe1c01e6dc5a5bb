"""How much memory training took at most: of the device, or of the process where that is a CPU."""

import resource
import sys
from collections.abc import Iterable
from typing import Any

import torch

from kd_core.runtime import distributed
from kd_core.training.cuda_graph import WARM_UP
from kd_core.training.hooks import Hook, TrainerLike

ON_GPU = "tensors on the GPU, in training"
ON_CPU = "the process, with libraries and evaluation"

FIRST_STEPS = WARM_UP + 2
"""After so many the optimizer has its state, and a CUDA graph is recorded."""


class PeakMemory:
    """Measures the memory of training steps, and prints it once, on a GPU.

    It reads what the allocator counted, and waits for nothing.

    Args:
        device: Where they run.
        steps: How many there will be.
    """

    def __init__(self, device: torch.device, steps: int) -> None:
        self.on_gpu, self.device = device.type == "cuda", device
        self._steps, self._bytes = 0, 0
        self._printed_after = min(FIRST_STEPS, steps)

    def forget_others(self) -> None:
        """Forget what something else than steps took, such as an evaluation."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

    def step(self) -> None:
        """Count a step; print what one takes after the first few, or the last of fewer."""
        self._steps += 1
        if self._steps == self._printed_after and self.on_gpu:
            self.note()
            distributed.print_note(f"peak memory of a step: {self._text()}")

    def note(self) -> None:
        """Note the most that was taken since what others took was forgotten."""
        if self.on_gpu:
            self._bytes = max(self._bytes, torch.cuda.max_memory_allocated(self.device))

    def result(self) -> dict[str, Any]:
        """Return the most bytes that a process took, and what they were taken of.

        All processes must ask. On a GPU None, if the run was resumed after its last step.
        """
        own = torch.tensor(self._bytes if self.on_gpu else peak_of_process(), device=self.device)
        most = -int(distributed.reduce_min(-own))
        return {"of": ON_GPU if self.on_gpu else ON_CPU, "bytes": most or None}

    def _text(self) -> str:
        reserved = torch.cuda.max_memory_reserved(self.device)
        total = torch.cuda.get_device_properties(self.device).total_memory
        each = " of each process" * distributed.is_distributed()
        return (
            f"{in_gb(self._bytes)} allocated, {in_gb(reserved)} reserved, of {in_gb(total)} of "
            f"the device{each}"
        )


class PeakMemoryHook(Hook):
    """Measures memory without that of evaluation; placed before the hook that evaluates.

    Args:
        device: Where the run trains.
    """

    for_trainer = False

    def __init__(self, device: torch.device) -> None:
        self.device, self.memory = device, PeakMemory(device, 0)

    def before_train(self, trainer: TrainerLike) -> None:
        """Begin to count steps."""
        self.memory = PeakMemory(self.device, trainer.total_steps - trainer.steps_done)

    def before_epoch(self, trainer: TrainerLike) -> None:
        """Forget what an evaluation took."""
        self.memory.forget_others()

    def after_step(self, trainer: TrainerLike) -> None:
        """Count the step."""
        self.memory.step()

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Note the most that a step of the epoch took."""
        self.memory.note()


def peak_memory(hooks: Iterable[Hook]) -> dict[str, Any]:
    """Return what a run's result says of its memory; all processes must ask."""
    for hook in hooks:
        if isinstance(hook, PeakMemoryHook):
            return {"peak_memory": hook.memory.result()}
    return {}


def gpu_memory(device: torch.device | None) -> str:
    """Return the most memory of a GPU since steps were counted, as text; "" of anything else."""
    if device is None or device.type != "cuda":
        return ""
    return f"GPU {in_gb(torch.cuda.max_memory_allocated(device))}"


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
