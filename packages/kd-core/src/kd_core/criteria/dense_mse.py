r"""DenseMSE: the teacher's maps, projected from the student's position by position.

.. math::

   L = \mathrm{mean}\big(P F^s-F^t\big)^2

P is a linear map of channels, the student's map is brought to the teacher's positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from kd_core.criteria.aligners import linear, project_maps
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import Maps, levels, mse


class DenseMSE(Criterion):
    """Match maps by their mean squared error, the student's behind a linear head per level.

    As in LightlyTrain's second distillation: the student's map is brought to the teacher's height
    and width, bilinearly, and nothing is normalised. Of several levels the mean is taken, weighted
    by the teacher's channels, as if these were joined; so the student's last map may be tapped once
    for each of the teacher's last blocks.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
    """

    takes = "maps"
    exempt: ClassVar = {"zero_at_identity": "a head is between the two maps"}

    def __init__(self, student_shapes: Shapes, teacher_shapes: Shapes) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        pairs = zip(student_shapes, teacher_shapes, strict=True)
        self.heads = nn.ModuleList(linear(s[0], t[0], zero_bias=True) for s, t in pairs)

    def forward(self, student: Maps, teacher: Maps, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        pairs = self.compared(student, teacher)
        widths = [shown.shape[-1] for _, shown in pairs]
        losses = [
            mse(own, shown) * width for (own, shown), width in zip(pairs, widths, strict=True)
        ]
        return torch.stack(losses).sum() / sum(widths)

    def compared(self, student: Maps, teacher: Maps) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the maps of both at each level, [N, h, w, D]."""
        pairs = []
        for head, (own, shown) in zip(self.heads, levels(student, teacher), strict=True):
            target = shown.detach().movedim(1, -1)
            pairs.append((project_maps(cast(nn.Linear, head), own, target.shape[1:3]), target))
        return pairs
