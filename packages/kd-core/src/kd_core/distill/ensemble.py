"""Ensemble: several teachers as one, by the weighted mean of their logits."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.config.names import named
from kd_core.errors import UserError, located, nearest
from kd_core.functional import promote
from kd_core.networks.task import Batch


class Ensemble(nn.Module):
    """Predicts the mean of the logits [N, C] of several models, in float32 at least.

    The mean is that of logits, not of probabilities: a geometric mean of the latter.

    Args:
        members: Tasks, or models called with a batch; each prepares images as it was trained. They
            are shared, not copied.
        weights: How much each member counts, beside the others; None lets all count the same.

    Raises:
        UserError: If the weights are not as many as the members, or one is not above 0.
    """

    def __init__(
        self, members: Iterable[nn.Module], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.weights: list[float] | None = None
        if weights is None:
            return
        right = all(isinstance(weight, int | float) and 0 < weight < math.inf for weight in weights)
        if len(weights) != len(self.members) or not right:
            raise UserError(
                f"an ensemble of {len(self.members)} needs as many weights above 0, not "
                f"{list(weights)}"
            )
        self.weights = [weight / sum(weights) for weight in weights]

    @property
    def other_classes(self) -> str:
        """Why the logits are not those of the data's classes, see `Task`; "" if they are."""
        each = (getattr(member, "other_classes", "") for member in self.members)
        return next(filter(None, each), "")

    def prepare(self, images: Tensor) -> Batch:
        """Return what a call takes, where it is measured like the other teachers' networks."""
        return {"image": images}

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean; in evaluation only.

        Raises:
            UserError: If there are no members, or their classes differ.
        """
        logits = promote([member(batch) for member in self.members])
        if not logits or any(each.shape != logits[0].shape for each in logits):
            came = [list(each.shape) for each in logits]
            raise UserError(f"an ensemble needs members of the same classes, but they give {came}")
        if self.weights is None:
            return torch.stack(logits).mean(0)
        parts = [weight * each for weight, each in zip(self.weights, logits, strict=True)]
        return torch.stack(parts).sum(0)


def with_ensembles(teachers: Mapping[str, nn.Module], ensembles: Any) -> dict[str, nn.Module]:
    """Return the teachers and, by their own names, the ensembles of listed teachers.

    Args:
        teachers: By name.
        ensembles: By name, lists of teachers' names, or dicts from such names to weights.

    Raises:
        UserError: If a list has no name, or a teacher's name, or names an unknown teacher.
    """
    if not isinstance(ensembles, Mapping):
        raise UserError("distiller.ensembles: wanted lists by name, such as dict(mean=['a', 'b'])")
    combined = dict(teachers)
    for name, listed in named(ensembles, "distiller.ensembles").items():
        is_listed = isinstance(listed, list | tuple | Mapping)
        if not is_listed or not all(isinstance(member, str) for member in listed):
            raise UserError(
                f"distiller.ensembles.{name}: wanted names of teachers, such as ['a', 'b'], got "
                f"{listed!r:.80}"
            )
        members, weights = list(listed), None
        if len(set(members)) < len(members):
            raise UserError(
                f"distiller.ensembles.{name}: {members} names a teacher twice; a dict from names "
                "to numbers says how much each counts"
            )
        if isinstance(listed, Mapping):
            weights = list(listed.values())
        if name in teachers:
            raise UserError(f"distiller.ensembles.{name}: a teacher has this name; take another")
        for member in members:
            if member not in teachers:
                problem = f"there is no teacher {member!r}{nearest(member, teachers)}"
                raise UserError(f"distiller.ensembles.{name}: {problem}")
        with located(f"distiller.ensembles.{name}"):
            combined[name] = Ensemble((teachers[member] for member in members), weights)
    return combined
