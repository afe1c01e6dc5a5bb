"""Ensemble: several teachers as one, by the mean of their logits."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.errors import UserError, nearest
from kd_core.functional import promote
from kd_core.networks.task import Batch


class Ensemble(nn.Module):
    """Predicts the mean of the logits [N, C] of several models, in float32 at least.

    Args:
        members: Tasks, or models called with a batch; each prepares images as it was trained. They
            are shared, not copied.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

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
        return torch.stack(logits).mean(0)


def with_ensembles(teachers: Mapping[str, nn.Module], ensembles: Any) -> dict[str, nn.Module]:
    """Return the teachers and, by their own names, the ensembles of listed teachers.

    Raises:
        UserError: If a list has no name, or a teacher's name, or names an unknown teacher.
    """
    if not isinstance(ensembles, Mapping):
        raise UserError("distiller.ensembles: wanted lists by name, such as dict(mean=['a', 'b'])")
    combined = dict(teachers)
    for name, members in ensembles.items():
        if name in teachers:
            raise UserError(f"distiller.ensembles.{name}: a teacher has this name; take another")
        for member in members:
            if member not in teachers:
                problem = f"there is no teacher {member!r}{nearest(member, teachers)}"
                raise UserError(f"distiller.ensembles.{name}: {problem}")
        combined[name] = Ensemble(teachers[member] for member in members)
    return combined
