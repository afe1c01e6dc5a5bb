"""Deep mutual learning: networks that teach one another while they learn."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_core.config.values import NonNegative, Positive, PositiveInt, checked
from kd_core.criteria.granularity import TEMPERATURES, make_encoders
from kd_core.criteria.guarded import is_multi_label
from kd_core.criteria.kd import kd
from kd_core.distill.connections import check_sample
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError, located
from kd_core.functional import promote
from kd_core.networks.batch_names import by_our_names
from kd_core.networks.probe import tap_values
from kd_core.networks.roles import roles_of, tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch, Task, network_of, passes_of


class MutualDistiller(Distiller):
    """A student and its peers: each learns the task, and the mean prediction of the others.

    Zhang et al., "Deep Mutual Learning", CVPR 2018, arXiv:1706.00384. All networks are trained and
    saved; only the student is evaluated and deployed. `TrainStep` updates all at once; with
    `AlternatingStep` each learns from those that are updated already.

    Some public code averages the divergence over classes too, which makes it weaker by their number
    (one hundred on CIFAR-100): `reduction="elementwise"` reproduces that.

    With `widths`, the networks teach one another codes of their pooled vectors too, as in Shao and
    Chen, "Multi-granularity for knowledge distillation", arXiv:2108.06681; see
    `kd_core.criteria.granularity`. Every network's encoders are trained with it, but not deployed.

    Args:
        student: A `Task` whose network returns logits [N, C], or whose role `logits` says where
            they are.
        peers: Others, by name.
        weight: Factor of the divergence from the peers.
        temperature: Divides the logits; its square multiplies the divergence.
        reduction: "batchmean", the paper's, or "elementwise".
        widths: Of the codes, (64, 256) in the paper; none for mutual learning by logits alone.
        temperatures: One for each code.
        sample: A batch to run through all networks once, for checks; codes need it.

    Raises:
        UserError: If there is no peer, a number is out of range, or the numbers of classes differ;
            if there are codes and no sample, or no temperature for one.
    """

    @checked
    def __init__(
        self,
        student: nn.Module,
        peers: Mapping[str, Task],
        *,
        weight: NonNegative = 1.0,
        temperature: Positive = 1.0,
        reduction: Literal["batchmean", "elementwise"] = "batchmean",
        widths: Sequence[PositiveInt] = (),
        temperatures: Sequence[Positive] = TEMPERATURES,
        sample: Batch | None = None,
    ) -> None:
        super().__init__(student, {}, {}, sample=sample)
        _require_one_class(sample or {})
        if not peers:
            raise UserError("mutual learning needs a peer; name one under `peers`")
        self.peers.update(peers)
        for name, peer in peers.items() if sample is not None else ():
            with located(f"peer {name!r}"):
                check_sample(peer, by_our_names(sample))
        self.weight, self.temperature, self.reduction = weight, temperature, reduction
        self._only: str | None = None
        self.code_temperatures = tuple(temperatures) if widths else ()
        self.encoders = nn.ModuleDict()
        if widths:
            self._make_encoders(widths, sample)

    @property
    def members(self) -> dict[str, nn.Module]:
        """The student and its peers; the student's name is empty."""
        return {"": self.student, **self.peers}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of all while training, the student's prediction otherwise."""
        if not self.training:
            return super().forward(batch)
        _require_one_class(batch := by_our_names(batch))
        own, teacher_features = {}, {}
        for name, member in self.members.items():
            learns = torch.is_grad_enabled() and self._only in (None, name)
            with torch.set_grad_enabled(learns):
                own[name], teacher_features[name] = self._outputs(name, member, batch)
        losses: dict[str, Tensor] = {}
        for name in [self._only] if self._only is not None else self.members:
            losses |= {_named(loss, name): value for loss, value in own[name].items()}
            losses[_named("dml", name)] = self.weight * self._divergence(name, teacher_features)
        return losses

    def learn_only(self, name: str | None) -> None:
        """Return the losses of one member only from now on; None returns those of all."""
        self._only = name

    def _outputs(self, name: str, member: nn.Module, batch: Batch) -> tuple[Any, list[Tensor]]:
        """Return a member's own losses, and its outputs for the others: logits, then codes."""
        taps = logits_of(member) + (pooled_of(member) if self.encoders else [])
        tap = FeatureTap(network_of(member), taps)
        tap.passes = passes_of(member, batch)
        with tap as student_features:
            own = member(batch)
        logits, *vectors = (student_features[path] for path in taps)
        if not vectors:
            return own, [logits]
        with torch.autocast(logits.device.type, enabled=False):
            return own, [logits, *self.encoders[_key(name)](promote(vectors[0]))]

    def _divergence(self, name: str, teacher_features: Mapping[str, Sequence[Tensor]]) -> Tensor:
        """Return the mean divergence of a member's logits and codes from those of the others."""
        levels = []
        for place, temperature in enumerate((self.temperature, *self.code_temperatures)):
            student = teacher_features[name][place]
            taught = [
                kd(student, other[place], temperature=temperature)
                for peer, other in teacher_features.items()
                if peer != name
            ]
            mean = torch.stack(taught).mean()
            levels.append(mean / student.shape[1] if self.reduction == "elementwise" else mean)
        return torch.stack(levels).sum()

    def _make_encoders(self, widths: Sequence[int], sample: Batch | None) -> None:
        if sample is None or len(widths) != len(self.code_temperatures):
            raise UserError(
                f"codes of widths {list(widths)} need a temperature each, not "
                f"{list(self.code_temperatures)}, and a sample with the size of the vectors"
            )
        for name, member in self.members.items():
            tap = FeatureTap(network_of(member), pooled_of(member))
            (vectors,) = tap_values(member, tap, sample)[1].values()
            made = make_encoders(vectors.shape[1], widths)
            self.encoders[_key(name)] = made.to(vectors.device)


def _require_one_class(batch: Any) -> None:
    if is_multi_label(by_our_names(batch)):
        raise UserError(
            "mutual learning compares classes by a softmax, but these labels are [N, C], several "
            "classes an image; distil from a teacher with kd_core.criteria.l2d.MLD"
        )


def logits_of(model: nn.Module) -> list[str]:
    """Return the tap of a model's logits."""
    return tap_list("@logits", model)


def pooled_of(model: nn.Module) -> list[str]:
    """Return the tap of the vector that a model's classifier gets."""
    role = "embedding" if roles_of(model).get("embedding") else "pooled"
    return tap_list(f"@{role}", model)


def _key(member: str) -> str:
    return member or "student"  # a module needs a name


def _named(loss: str, member: str) -> str:
    return f"{loss}_{member}" if member else loss
