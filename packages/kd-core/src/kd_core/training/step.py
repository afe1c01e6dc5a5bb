"""One training step: takes batches, returns losses, updates parameters."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_core.config.kinds import Kind, makes_calls_with
from kd_core.config.values import Positive, checked
from kd_core.distill.distiller import Distiller
from kd_core.distill.weighing import sum_losses
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from kd_core.runtime import data_parallel, distributed
from kd_core.training.loss_scale import LossScale

STEP = Kind(
    "a training step",
    lambda found: makes_calls_with(found, ("distiller", "optimizer")),
    "a class as kd_core.training.step.TrainStep: made with `distiller` and `optimizer`, "
    "called with batches",
)

_NO_GRADIENT = (
    "no loss depends on a weight that is trained; does the student's forward detach its output, or "
    "run under no_grad or inference_mode?"
)

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainStep:
    """The plain step: forward, backward, clip, update.

    Nothing in it reads a value back to the host, so that it can be captured as a CUDA graph.
    Methods that change the step itself (two gradients, mutual learning) are other objects with the
    same call.

    Args:
        distiller: Computes the losses of a batch; its steps are counted here.
        optimizer: Of the distiller's parameters.
        precision: "fp32", or "bf16" or "fp16" for autocast; parameters and criteria stay in
            float32. With fp16 the loss is scaled, see `LossScale`.
        clip_norm: Largest norm of the gradient of all parameters, or None.
        find_unused_parameters: Passed to DDP, for networks with parts that some batches do not use.
        compile: Compile networks, teachers and criteria as a whole with `torch.compile`.
    """

    @checked
    def __init__(
        self,
        distiller: Distiller,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = "fp32",
        clip_norm: Positive | None = None,
        find_unused_parameters: bool = False,
        compile: bool = False,
    ) -> None:
        self.distiller = distiller
        self.optimizer = optimizer
        self.dtype = PRECISIONS[precision]
        self.clip_norm = clip_norm
        self.device = distiller.steps.device
        self.loss_scale = LossScale(self.device) if precision == "fp16" else None
        self.model: Any = distiller
        if distributed.is_distributed():
            self.model = data_parallel.averaged(
                distiller, find_unused_parameters=find_unused_parameters
            )
        if compile:  # as one: hooks in networks compiled alone never fire
            self.model = torch.compile(self.model)

    def __call__(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Take one optimizer step on the mean loss of the batches; return the detached losses."""
        self.optimizer.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = {}
        for last, batch in _mark_last(batches):
            with self._sync(last):
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                    losses = self.model(batch)
                    mean = sum_losses(losses) / len(batches)
                if not mean.requires_grad:
                    raise UserError(_NO_GRADIENT)
                scaled(mean, self.loss_scale).backward()
            for name, loss in {**losses, **self.distiller.reports}.items():
                share = loss.detach() / len(batches)
                total[name] = total[name] + share if name in total else share
        update(self.optimizer, self.loss_scale, self._clip)
        self.distiller.advance()
        return total

    def _clip(self) -> None:
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.distiller.parameters(), self.clip_norm, foreach=True)

    def _sync(self, last: bool) -> AbstractContextManager[None]:
        """Let DDP exchange gradients only in the last of the accumulated batches."""
        if last or not distributed.is_distributed():
            return nullcontext()
        return self.model.no_sync()


def scaled(loss: Tensor, scale: LossScale | None) -> Tensor:
    """Return the loss as it is differentiated."""
    return loss if scale is None else loss * scale.factor


def update(
    optimizer: torch.optim.Optimizer, scale: LossScale | None, clip: Callable[[], None]
) -> None:
    """Take the optimizer's step; gradients are unscaled before they are clipped."""
    if scale is None:
        clip()
        optimizer.step()
        return
    found = scale.unscale([p.grad for group in optimizer.param_groups for p in group["params"]])
    clip()
    scale.step(optimizer, found)
    scale.update(found)


def _mark_last(batches: Sequence[Batch]) -> Iterator[tuple[bool, Batch]]:
    for number, batch in enumerate(batches, start=1):
        yield number == len(batches), batch
