"""DOT: the gradients of task and distillation have separate momenta."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from kd_core.config.values import Finite, Positive, checked
from kd_core.distill.distiller import Distiller
from kd_core.distill.joint_terms import names_of
from kd_core.distill.weighing import sum_losses
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from kd_core.training.loss_scale import LossScale
from kd_core.training.step import PRECISIONS, Precision, scaled

Parameters = list[nn.Parameter]


class DOTStep:
    """One step of the distillation-oriented trainer.

    Zhao et al., "DOT: A Distillation-Oriented Trainer", ICCV 2023, arXiv:2307.08436. The student's
    own losses and those of the terms are differentiated separately, which costs a second backward
    pass. The task's gradient has momentum `m - delta`, that of the terms `m + delta`, where m is
    SGD's; a parameter with only one of them has m. Weight decay is applied once. As in the authors'
    code, a momentum starts as the first gradient, and the decay of a parameter that only the terms
    reach starts with its second step.

    Args:
        distiller: Computes the losses of a batch; its steps are counted here.
        optimizer: Plain SGD with momentum. Its rates, momentum and weight decay are used, and its
            state keeps both momenta; its own update is not used.
        delta: 0.075 for CIFAR and Tiny-ImageNet, 0.09 for ImageNet.
        precision: See `TrainStep`.

    Raises:
        UserError: If the optimizer is another one, a momentum is none, or there is no term.
    """

    @checked
    def __init__(
        self,
        distiller: Distiller,
        optimizer: torch.optim.Optimizer,
        *,
        delta: Finite = 0.075,
        precision: Precision = "fp32",
        clip_norm: Positive | None = None,
    ) -> None:
        if not isinstance(optimizer, SGD) or any(_is_varied(g) for g in optimizer.param_groups):
            raise UserError("DOT is a rule for torch.optim.SGD without nesterov and dampening")
        if clip_norm is not None:
            raise UserError("DOT has two gradients and cannot clip one; leave clip_norm out")
        if not distiller.terms:
            raise UserError("DOT needs a term that distils; a student alone is trained by SGD")
        for momentum in {group["momentum"] for group in optimizer.param_groups}:
            if not abs(delta) <= momentum < 1 - abs(delta):
                raise UserError(
                    f"DOT: delta {delta:g} beside a momentum of {momentum:g} makes one that is not "
                    "in [0, 1); change delta, or the optimizer's momentum"
                )
        self.distiller, self.optimizer, self.delta = distiller, optimizer, delta
        self.dtype = PRECISIONS[precision]
        self.device = distiller.steps.device
        self.loss_scale = LossScale(self.device) if precision == "fp16" else None

    def __call__(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Take one step on the mean losses of the batches; return the detached losses."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        task: list[Tensor | None] = [None] * len(parameters)
        terms: list[Tensor | None] = [None] * len(parameters)
        total: dict[str, Tensor] = {}
        for batch in batches:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                losses = self.distiller(batch)
            shares = {name: loss / len(batches) for name, loss in losses.items()}
            taught = {name: shares[name] for name in names_of(self.distiller.terms)}
            own = {name: loss for name, loss in shares.items() if name not in taught}
            _add(terms, self._gradients(taught, parameters, keep=bool(own)))
            _add(task, self._gradients(own, parameters, keep=False))
            reported = {name: x / len(batches) for name, x in self.distiller.reports.items()}
            for name, share in {**shares, **reported}.items():
                total[name] = total.get(name, 0) + share.detach()
        task, terms = _averaged(task), _averaged(terms)
        found = None if self.loss_scale is None else self.loss_scale.unscale([*task, *terms])
        update(self.optimizer, task, terms, self.delta, skip=found)
        if self.loss_scale is not None and found is not None:
            self.loss_scale.update(found)
        self.distiller.advance()
        return total

    def _gradients(self, losses: dict[str, Tensor], parameters: Parameters, *, keep: bool) -> Any:
        if not losses:
            return [None] * len(parameters)
        loss = scaled(sum_losses(losses), self.loss_scale)
        return torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)


@torch.no_grad()
def update(
    optimizer: torch.optim.Optimizer,
    task: Sequence[Tensor | None],
    terms: Sequence[Tensor | None],
    delta: float,
    skip: Tensor | None = None,
) -> None:
    """Update the parameters of SGD by DOT's rule, without host reads.

    Args:
        optimizer: Has parameters, rates, momentum and weight decay; keeps the momenta.
        task: Gradient of the task's loss for each parameter, None where there is none.
        terms: Gradient of the distillation loss likewise.
        delta: Subtracted from the one momentum and added to the other.
        skip: Where it is not 0, nothing changes; see `LossScale`.
    """
    kept = None if skip is None else skip > 0
    gradients = iter(zip(task, terms, strict=True))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            own, taught = next(gradients)
            state = optimizer.state[parameter]
            difference = 0.0 if own is None or taught is None else delta
            decayed = group["weight_decay"] * parameter
            moved = []
            if own is not None:
                momentum = group["momentum"] - difference
                moved.append(_move(state, "momentum_buffer", own + decayed, momentum, kept))
            if taught is not None:
                if own is None and "momentum_kd_buffer" in state:
                    taught = taught + decayed
                momentum = group["momentum"] + difference
                moved.append(_move(state, "momentum_kd_buffer", taught, momentum, kept))
            for buffer in moved:
                change = group["lr"] * buffer
                parameter.sub_(change if kept is None else change.masked_fill(kept, 0.0))


def _move(
    state: dict[str, Any], name: str, gradient: Tensor, momentum: float, kept: Tensor | None
) -> Tensor:
    """Bring a momentum to the next step, or begin it, unless it is to be kept; return it."""
    before = state.get(name)
    if kept is not None:
        unmoved = torch.zeros_like(gradient) if before is None else before
        moved = gradient if before is None else before * momentum + gradient
        moved = torch.where(kept, unmoved, moved)
        state[name] = moved if before is None else before.copy_(moved)  # in the same memory
    elif before is None:
        state[name] = gradient.clone()
    else:
        before.mul_(momentum).add_(gradient)
    buffer: Tensor = state[name]
    return buffer


def _add(sums: list[Tensor | None], gradients: Sequence[Tensor | None]) -> None:
    for place, gradient in enumerate(gradients):
        before = sums[place]
        if gradient is not None:
            sums[place] = gradient if before is None else before + gradient


def _averaged(gradients: list[Tensor | None]) -> list[Tensor | None]:
    """Average over processes, like DDP; all processes have the same parameters with gradients."""
    if not distributed.is_distributed():
        return gradients
    share = 1 / distributed.world_size()
    return [None if g is None else distributed.reduce_sum(g) * share for g in gradients]


def _is_varied(group: dict[str, Any]) -> bool:
    return bool(group["nesterov"] or group["dampening"] or group["maximize"])
