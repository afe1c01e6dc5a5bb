r"""FSP: the flow between layers, as Gram matrices of their channels.

.. math::

   L = \sum_l\mathrm{mean}\big(G^s_l-G^t_l\big)^2,\qquad G_l = \tfrac1{HW}F_l F_{l+1}^\top

G are products of channels of consecutive levels.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import (
    Maps,
    full_precision,
    levels,
    mse,
    pool_to_match,
    require_same_channels,
)


@full_precision
def fsp(student: Maps, teacher: Maps) -> Tensor:
    """Match the products of channels of consecutive levels, by their mean squared error.

    Yim et al., "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
    Transfer Learning", CVPR 2017. Summed over pairs of levels; the larger of the two maps of a
    pair is average-pooled to the smaller.

    Args:
        student: At least two maps [N, C, H, W], shallow to deep.
        teacher: As many maps, of the same channels but any size. No gradient flows into them.

    Raises:
        UserError: If the numbers of levels or the channels differ, or if there is one level only.
    """
    pairs = levels(student, teacher)
    _require_two_levels(len(pairs))
    flows = [
        [_flow(a, b) for a, b in pairwise(side)]
        for side in ([s for s, _ in pairs], [t.detach() for _, t in pairs])
    ]
    return torch.stack([mse(s, t) for s, t in zip(*flows, strict=True)]).sum()


def _flow(shallow: Tensor, deep: Tensor) -> Tensor:
    """Return the mean over positions of the products of channels, [N, C shallow, C deep]."""
    shallow, deep = (maps.flatten(2) for maps in pool_to_match(shallow, deep))
    return shallow @ deep.mT / shallow.shape[2]


def _require_two_levels(count: int) -> None:
    if count < 2:
        raise UserError('FSP compares consecutive levels; tap two at least: ["@stem", "@stages"]')


class FSP(Criterion):
    """See `fsp`. The authors, and RepDistiller, minimise it alone before the task is learned."""

    takes = "maps"
    example: ClassVar = (((4, 8, 8), (6, 4, 4)), ((4, 8, 8), (6, 4, 4)))

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject fewer than two levels, and channels that differ."""
        super().check_shapes(student, teacher)
        _require_two_levels(len(student))
        require_same_channels("FSP", student, teacher)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        return fsp(student, teacher)
