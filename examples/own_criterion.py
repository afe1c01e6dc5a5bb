"""Your own distillation method: one criterion in your own file; see docs/own_method.md."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812
from kd_core import Criterion
from kd_core.criteria.criterion import Shapes
from kd_core.functional import batch_mean
from torch import Tensor, nn


class DirectionDistance(Criterion):
    """Compare the directions of pooled vectors; the student's go through a linear layer first."""

    takes = "vectors"
    exempt: ClassVar = {"zero_at_identity": "a layer is between the two"}

    def __init__(self, student_shapes: Shapes, teacher_shapes: Shapes) -> None:
        super().__init__()
        self.embed = nn.Linear(student_shapes[0][0], teacher_shapes[0][0])

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D] and [N, E]."""
        student = F.normalize(self.embed(student))
        return batch_mean((student - F.normalize(teacher.detach())).abs().sum(1))
