"""How a criterion balances a teacher's features: not at all, by running statistics, by PHI-S."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_core.criteria.balancing import RunningStandardizer, phi_s_matrix
from kd_core.errors import UserError
from kd_core.runtime.distributed import on_rank_0, reduce_sum

Balance = Literal["none", "standardize", "phi_s"]

_LAST_MOMENTUM = 0.001


class Unbalanced(nn.Module):
    """Leaves features as they are."""

    def balanced(self, features: Tensor) -> Tensor:
        """Return the features."""
        return features


class PhiS(nn.Module):
    """Balances features [..., D] by PHI-S, estimated once, before training; see `phi_s`.

    Until then its matrix is NaN, so that a training that forgot it stops at its first step.

    Args:
        width: Number of channels D.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.full((width, width), torch.nan))
        self._count, self._origin, self._moments = 0, torch.zeros(0), torch.zeros(0)

    def balanced(self, features: Tensor) -> Tensor:
        """Return balanced features of the same shape."""
        return (features - self.mean) @ self.matrix.T

    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Take more features [..., D] into the estimate; every entry of the rest counts the same.

        What is kept are sums in float64, not the features.
        """
        rows = features.detach().reshape(-1, features.shape[-1]).double()
        if not len(rows):
            return
        if not self._count:
            self._origin = rows.mean(0)  # near the mean, so that squares lose no digits
            self._moments = rows.new_zeros(len(self.mean) + 1, len(self.mean))
        rows = rows - self._origin
        self._count += len(rows)
        self._moments += torch.cat([rows.sum(0)[None], rows.T @ rows])

    @torch.no_grad()
    def finish(self) -> int:
        """Set mean and matrix from what all processes took in; return how many features it was.

        Raises:
            UserError: If there were fewer than two, or nothing varied.
        """
        count, mean, covariance = self._pooled()
        matrix = on_rank_0(lambda: phi_s_matrix(covariance).cpu())  # one for all, to the last bit
        self.mean.copy_(mean)
        self.matrix.copy_(matrix)
        self._count, self._origin, self._moments = 0, torch.zeros(0), torch.zeros(0)
        return count

    def _pooled(self) -> tuple[int, Tensor, Tensor]:
        """Return number, mean and unbiased covariance of the features of all processes."""
        width, device = len(self.mean), self.mean.device
        moments = self._moments.new_zeros(width + 1, width, dtype=torch.float64, device=device)
        origin, own = moments.new_zeros(width), self._count
        if own:
            origin, moments = self._origin, self._moments
        count = reduce_sum(moments.new_full((), own))
        if count < 2:
            raise UserError(f"PHI-S needs features of two images at least, not {int(count)}")
        mean = reduce_sum(moments[0] + own * origin) / count
        shift = origin - mean  # from the sums around `origin` to those around the mean
        cross = torch.outer(moments[0], shift)
        scatter = moments[1:] + cross + cross.T + own * torch.outer(shift, shift)
        return int(count), mean, reduce_sum(scatter) / (count - 1)


Balancer = Unbalanced | RunningStandardizer | PhiS


def make_balancer(balance: Balance, width: int) -> Balancer:
    """Return what balances features of so many channels."""
    if balance == "standardize":
        return RunningStandardizer(width)
    return PhiS(width) if balance == "phi_s" else Unbalanced()


def target(balancer: Balancer, features: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Return a teacher's features as they are compared in training; running statistics move."""
    if isinstance(balancer, RunningStandardizer) and balancer.training:
        return balancer(features, momentum(batch))
    return balancer.balanced(features)


def momentum(batch: Mapping[str, Any]) -> Tensor:
    """Return the share of a batch in running statistics: half a cosine from 1 to 0.001.

    Raises:
        UserError: If the batch does not say how much of the run is done.
    """
    if "progress" not in batch:
        raise UserError(
            "balance='standardize' depends on how much of the run is done: call "
            "distiller.begin(steps_per_epoch, epochs) before training, and distiller.advance() "
            "after every optimizer step"
        )
    progress: Tensor = batch["progress"]
    return _LAST_MOMENTUM + (1 - _LAST_MOMENTUM) * (1 + (math.pi * progress).cos()) / 2
