"""Deep mutual learning: networks that teach one another while they learn."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kd_core import distributed
from kd_core.criteria.kd import kd
from kd_core.distiller import Distiller
from kd_core.errors import UserError, nearest
from kd_core.losses import sum_losses
from kd_core.roles import roles_of, tap_list
from kd_core.step import TrainStep
from kd_core.taps import FeatureTap
from kd_core.task import Batch, Task, network_of

REDUCTIONS = ("batchmean", "elementwise")


class MutualDistiller(Distiller):
    """A student and its peers: each learns the task, and the mean of what the others predict.

    Zhang et al., "Deep Mutual Learning", CVPR 2018, arXiv:1706.00384. All networks are trained and
    saved; the student is the one that is evaluated along the way and deployed. With `TrainStep` all
    move at once; `AlternatingStep` lets each learn from what the ones before it have become.

    Some public code averages the divergence over classes too, which makes it weaker by their number
    (one hundred on CIFAR-100): `reduction="elementwise"` reproduces that.

    Args:
        student: A `Task` whose network returns logits [N, C], or whose role `logits` says where
            they are.
        peers: Others, by name.
        weight: Factor of the divergence from the peers.
        temperature: Divides the logits; its square multiplies the divergence.
        reduction: "batchmean", the paper's, or "elementwise".
        sample: A batch to run through all networks once, for checks.

    Raises:
        UserError: If there is no peer, a reduction is unknown, or the numbers of classes differ.
    """

    def __init__(
        self,
        student: nn.Module,
        peers: Mapping[str, Task],
        *,
        weight: float = 1.0,
        temperature: float = 1.0,
        reduction: str = "batchmean",
        sample: Batch | None = None,
    ) -> None:
        super().__init__(student, {}, {}, sample=sample)
        if not peers:
            raise UserError("mutual learning needs a peer; name one under `peers`")
        if reduction not in REDUCTIONS:
            raise UserError(f"reduction is {reduction!r}{nearest(reduction, REDUCTIONS)}")
        self.peers.update(peers)
        self.weight, self.temperature, self.reduction = weight, temperature, reduction
        self._only: str | None = None

    @property
    def members(self) -> dict[str, nn.Module]:
        """The student and its peers; the student's name is empty."""
        return {"": self.student, **self.peers}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of all while training, the student's prediction otherwise."""
        if not self.training:
            return super().forward(batch)
        own, logits = {}, {}
        for name, member in self.members.items():
            learns = torch.is_grad_enabled() and self._only in (None, name)
            tap = FeatureTap(network_of(member), logits_of(member))
            with torch.set_grad_enabled(learns), tap as seen:
                own[name] = member(batch)
            (logits[name],) = seen.values()
        losses: dict[str, Tensor] = {}
        for name in [self._only] if self._only is not None else self.members:
            losses |= {_named(loss, name): value for loss, value in own[name].items()}
            losses[_named("dml", name)] = self.weight * self._divergence(name, logits)
        return losses

    def learn_only(self, name: str | None) -> None:
        """Give the losses of one member only from now on; None gives those of all."""
        self._only = name

    def _divergence(self, name: str, logits: dict[str, Tensor]) -> Tensor:
        taught = [
            kd(logits[name], shown, temperature=self.temperature)
            for other, shown in logits.items()
            if other != name
        ]
        mean = torch.stack(taught).mean()
        return mean / logits[name].shape[1] if self.reduction == "elementwise" else mean


class AlternatingStep(TrainStep):
    """One member after the other takes a step, each from what the others are by then.

    The order of algorithm 1 in the paper. Every member runs once for each of them, so a step of two
    costs two forward passes more than the simultaneous one, and BatchNorm statistics move as often.

    Args:
        distiller: A `MutualDistiller`.
        optimizer: Of all members; one that leaves parameters without gradient alone.
        precision: See `TrainStep`.

    Raises:
        UserError: If there are no peers, or several processes.
    """

    def __init__(
        self, distiller: Distiller, optimizer: torch.optim.Optimizer, *, precision: str = "fp32"
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
            mean.backward()
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss.detach() / len(batches)
        self.optimizer.step()
        return total


def logits_of(model: nn.Module) -> list[str]:
    """Return the tap of a model's logits: what its role of this name says, or else its output."""
    return tap_list("@logits" if roles_of(model).get("logits") else "output", model)


def _named(loss: str, member: str) -> str:
    return f"{loss}_{member}" if member else loss
