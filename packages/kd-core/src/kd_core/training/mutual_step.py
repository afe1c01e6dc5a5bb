"""The step of mutual learning that updates one network after the other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_core.distill.distiller import Distiller
from kd_core.distill.mutual import MutualDistiller
from kd_core.distill.weighing import sum_losses
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from kd_core.training.step import Precision, TrainStep, scaled, update


class AlternatingStep(TrainStep):
    """Members take a step one after the other, each with the updated others.

    The order of algorithm 1 in the paper. Every member runs once for each of them, so a step of two
    costs two forward passes more than the simultaneous one, and BatchNorm statistics move as often.

    Args:
        distiller: A `MutualDistiller`.
        optimizer: Of all members; it must not change parameters without gradient.
        precision: See `TrainStep`.

    Raises:
        UserError: If there are no peers, or several processes.
    """

    def __init__(
        self,
        distiller: Distiller,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = "fp32",
    ) -> None:
        if not isinstance(distiller, MutualDistiller):
            raise UserError("AlternatingStep is for mutual learning; name `peers`")
        if distributed.is_distributed():
            raise UserError("AlternatingStep runs in one process; use the simultaneous step")
        super().__init__(distiller, optimizer, precision=precision)
        self.mutual = distiller

    def __call__(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Take one step of every member; return the detached losses of all."""
        losses: dict[str, Tensor] = {}
        for name in self.mutual.members:
            self.mutual.learn_only(name)
            losses |= self._learn(batches)
        self.mutual.learn_only(None)
        self.distiller.advance()
        return losses

    def _learn(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = {}
        for batch in batches:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                losses = self.distiller(batch)
                mean = sum_losses(losses) / len(batches)
            scaled(mean, self.loss_scale).backward()
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss.detach() / len(batches)
        update(self.optimizer, self.loss_scale, self._clip)
        return total
