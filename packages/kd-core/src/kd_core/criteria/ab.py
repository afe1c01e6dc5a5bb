r"""AB: which neurons of the teacher are active, not how much.

.. math::

   L =
   \tfrac{3}{1000}\sum_l 2^{-(n-l)}\,\tfrac1N\sum\begin{cases}\max(0,\ m-F^s)^2 & F^t>0\\ \max(0,\ m
   +F^s)^2 & F^t\le 0\end{cases}

F are maps before the activation, m the margin; the deepest level n counts whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import NonNegative
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.fitnet import regressor
from kd_core.functional import (
    Maps,
    full_precision,
    halving_sum,
    levels,
    require_same_shape,
)


@full_precision
def ab(student: Maps, teacher: Maps, *, margin: float = 1.0) -> Tensor:
    """Push every neuron over its threshold, to the side where the teacher's is.

    Heo et al., "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden
    Neurons", AAAI 2019, arXiv:1811.03233. A squared hinge, summed over neurons, which makes it
    depend on the resolution; each level counts half of the next deeper one, and all are scaled by
    3/1000, as in the authors' code.

    Args:
        student: Map before the activation [N, C, H, W], or a tuple, shallow to deep.
        teacher: As many maps of the same shapes. No gradient flows into them.
        margin: How far beyond the threshold, in units of the map, the student is pushed.

    Raises:
        UserError: If the numbers of levels or the shapes differ.
    """
    losses = [_hinge(s, t.detach(), margin) for s, t in levels(student, teacher)]
    return halving_sum(losses) * 3 / 1000


def _hinge(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    require_same_shape(student, teacher)
    with torch.no_grad():  # where the student's neurons would have to be
        sides = student.clamp(min=margin), student.clamp(max=-margin)
        wanted = torch.where(teacher > 0, *sides)
    return F.mse_loss(student, wanted, reduction="sum") / max(len(student), 1)


class AB(Criterion):
    """See `ab`; adds a connector (convolution, BatchNorm) per level whose shapes differ.

    The authors minimise it alone, before the task is learned.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        margin: How far beyond the threshold, in units of the map, the student is pushed.

    Raises:
        UserError: If a student map is smaller than the teacher's, but not by half.
    """

    takes = "maps"
    exempt: ClassVar = {"zero_at_identity": "neurons closer than the margin are still pushed"}

    def __init__(
        self, student_shapes: Shapes, teacher_shapes: Shapes, *, margin: NonNegative = 1.0
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.margin = margin
        pairs = zip(student_shapes, teacher_shapes, strict=True)
        self.connectors = nn.ModuleList(_connector(s, t) for s, t in pairs)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        maps = zip(self.connectors, levels(student, teacher), strict=True)
        return ab([connect(s) for connect, (s, _) in maps], teacher, margin=self.margin)


def _connector(student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    if list(student) == list(teacher):
        return nn.Identity()
    return regressor(student, teacher, activation=False)
