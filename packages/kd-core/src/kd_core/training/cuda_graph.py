"""Capture a training step as a CUDA graph and replay it: launches do not wait for Python."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kd_core.distill.distiller import Distiller
from kd_core.functional import tensors
from kd_core.networks.activation_checkpointing import has_checkpointed
from kd_core.networks.task import Batch, Task
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.training.hooks import Hook, TrainerLike
from kd_core.training.host_reads import NotedHostReads
from kd_core.training.loss_scale import LossScale, skips_on_device

Losses = dict[str, Tensor]
Step = Callable[[Sequence[Batch]], Losses]
Record = Callable[[Callable[[], Losses]], tuple[Callable[[], None], Losses]]

WARM_UP = 3  # plain steps of a layout first: they initialise optimizers, cuDNN and cuBLAS
LAYOUTS = 4  # whole and last batch, with some variants; more means that shapes vary


class CapturedStep(Hook):
    """A captured step, with the same call as the plain one.

    For every layout of batches (names, shapes, types) it takes a few plain steps and then records
    one, on tensors into which later batches are copied. The recording computes the same as the
    plain step. If a step cannot be recorded, the reason is printed and the plain step is used. As a
    hook, it checks before every epoch which modules are trained.

    Args:
        step: The plain step.
        distiller: The trained distiller.
        optimizer: Its optimizer; the rates must be on the device.
        record: Takes a function without arguments; returns a function that replays it, and its
            losses; by default a CUDA graph.
    """

    def __init__(
        self,
        step: Step,
        distiller: Distiller,
        optimizer: Optimizer,
        *,
        record: Record | None = None,
    ) -> None:
        self.step, self.distiller, self.optimizer = step, distiller, optimizer
        self.record = record or CudaGraphs()
        self.device = distiller.steps.device
        self.loss_scale: LossScale | None = getattr(step, "loss_scale", None)
        self.reason = why_not_capturable(distiller, optimizer, self.loss_scale)
        self._graphs: dict[Any, _Recorded] = {}
        self._steps_of: dict[Any, int] = {}
        self._modes: Any = None
        if self.reason:
            self._say()

    def __call__(self, batches: Sequence[Batch]) -> Losses:
        """Take a step; the losses are overwritten by the next."""
        if self.reason:
            return self.step(batches)
        layout = tuple(_layout(batch) for batch in batches)
        if layout in self._graphs:
            return self._graphs[layout].replay(batches)
        taken = self._steps_of[layout] = self._steps_of.get(layout, 0) + 1
        if taken <= WARM_UP or len(self._graphs) == LAYOUTS:
            return self._warm_up(batches, watch=taken == WARM_UP)
        return self._capture(layout, batches)

    @property
    def replays(self) -> list[Callable[[], None]]:
        """Functions that replay each recording on its last tensors, for measurements."""
        return [recorded.run for recorded in self._graphs.values()]

    def before_epoch(self, trainer: TrainerLike) -> None:
        """Drop recordings if other modules are trained now."""
        modes = [module.training for module in self.distiller.modules()]
        modes += [parameter.requires_grad for parameter in self.distiller.parameters()]
        if modes != self._modes:
            self._modes = modes
            self._graphs.clear()
            self._steps_of.clear()

    def _warm_up(self, batches: Sequence[Batch], *, watch: bool) -> Losses:
        # Not the first step is watched: some work is done only there.
        noting = NotedHostReads(self.device.type) if watch else None
        with _on_side_stream(self.device), noting or nullcontext():
            losses = self.step(batches)
        if noting and noting.host_reads:
            self.reason = f"the step makes the host wait: {noting.host_reads[0]}"
            self._say()
        elif off_device := [t for t in tensors(batches) if t.device.type != self.device.type]:
            self.reason = f"batches hold tensors on the {off_device[0].device}"
            self._say()
        return losses

    def _capture(self, layout: Any, batches: Sequence[Batch]) -> Losses:
        fixed = [_copied(batch) for batch in batches]
        capturable = [group.get("capturable") for group in self.optimizer.param_groups]
        try:
            for group in self.optimizer.param_groups:
                if "capturable" in group:
                    group["capturable"] = True  # Adam and its like ask for it while recording
            replay, losses = self.record(lambda: self.step(fixed))
        except RuntimeError as error:
            self.reason = str(error).strip().splitlines()[0]
            self._say()
            return self.step(batches)
        finally:
            for group, before in zip(self.optimizer.param_groups, capturable, strict=True):
                if before is not None:
                    group["capturable"] = before
        self._graphs[layout] = _Recorded(fixed, replay, losses)
        return self._graphs[layout].replay(batches)

    def _say(self) -> None:
        err.print(f"training steps are not captured as a CUDA graph: {self.reason}")


class CudaGraphs:
    """Records functions as CUDA graphs that share their memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:
        """Record without running; return the replay, and the losses that it writes to."""
        graph, outside = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Only this thread must not allocate: loaders pin memory in others.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                losses = function()
        except RuntimeError:
            torch.cuda.set_stream(outside)  # torch does not do this when a recording fails
            raise
        self._pool = self._pool or graph.pool()
        return graph.replay, losses


class _Recorded:
    """A recording, and the tensors that it reads."""

    def __init__(
        self, batches: Sequence[Batch], replay: Callable[[], None], losses: Losses
    ) -> None:
        self._inputs, self.run, self._losses = list(tensors(batches)), replay, losses

    def replay(self, batches: Sequence[Batch]) -> Losses:
        for fixed, tensor in zip(self._inputs, tensors(batches), strict=True):
            fixed.copy_(tensor, non_blocking=True)
        self.run()
        return self._losses


def why_not_capturable(
    distiller: Distiller, optimizer: Optimizer, scale: LossScale | None = None
) -> str:
    """Return why steps of these cannot be recorded; "" if they can."""
    students = [distiller.student, *distiller.peers.values()]
    changing = [type(s).__name__ for s in students if isinstance(s, Task) and s.changes_data]
    if distributed.is_distributed():
        return "there are several processes"
    if changing:
        return f"{changing[0]} changes from epoch to epoch"
    if has_checkpointed(distiller.modules()):
        return "activation checkpointing sets generators back, which a recording cannot"
    if not all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups):
        return (
            f"{type(optimizer).__name__} keeps its rate on the host; one with a fused form does not"
        )
    if scale is not None and not skips_on_device(optimizer):
        return "precision=fp16 with this optimizer asks the host whether to skip a step"
    return ""


def _on_side_stream(device: torch.device) -> Any:
    """Run CUDA work on a side stream, which a recording needs before it; other streams wait."""
    return _SideStream() if device.type == "cuda" else nullcontext()


class _SideStream:
    def __enter__(self) -> None:
        self._outside, self._inside = torch.cuda.current_stream(), torch.cuda.Stream()
        self._inside.wait_stream(self._outside)
        torch.cuda.set_stream(self._inside)

    def __exit__(self, *error: object) -> None:
        torch.cuda.set_stream(self._outside)
        self._outside.wait_stream(self._inside)


def _layout(value: Any) -> Any:
    """Return the layout of a batch; batches of one layout share a recording."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    if isinstance(value, dict):
        return tuple((key, _layout(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(_layout(item) for item in value)
    return value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, list | tuple) else value
