r"""VID: a lower bound of the mutual information between the maps of two networks.

.. math::

   L = \sum_l\mathrm{mean}\ \tfrac12\Big(\frac{(F^t_l-m_l(F^s_l))^2}{v_l}+\log v_l\Big)

m are convolutions, v a variance for each channel.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import Maps, full_precision, levels, pool_to_match, require_same_shape

_VARIANCE = 5.0  # of every channel at the start


@full_precision
def vid(mean: Maps, log_scale: Maps, target: Maps, *, eps: float = 1e-5) -> Tensor:
    """Return the negative log-likelihood of a normal distribution, mean over elements.

    Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019,
    arXiv:1904.05835. Its variance is softplus(log_scale) + eps; the constant of the density is
    left out, so the loss may be negative.

    Args:
        mean: What the student predicts, one map [N, C, H, W] or a tuple, shallow to deep.
        log_scale: For every level one number a channel, [C].
        target: The teacher's maps. No gradient flows into them.
        eps: The least variance.

    Raises:
        UserError: If the numbers of levels or the shapes differ.
    """
    pairs = levels(mean, target)
    scales = (log_scale,) if isinstance(log_scale, Tensor) else log_scale
    losses = []
    for (predicted, map_), scale in zip(pairs, scales, strict=True):
        require_same_shape(predicted, map_)
        variance = F.softplus(scale) + eps
        errors = (predicted - map_.detach()).square().sum((0, 2, 3))
        number = predicted.numel() // max(len(variance), 1)  # of elements of a channel
        loss = 0.5 * (errors / variance + number * variance.log())
        losses.append(loss.sum() / max(predicted.numel(), 1))
    return torch.stack(losses).sum()


class VID(Criterion):
    """See `vid`; adds a regressor of three 1x1 convolutions and a variance a channel per level.

    The larger of two maps is average-pooled to the smaller before the regressor. The variances
    stay at 5 by default, as in mdistiller, whose code means to train them but hides them from its
    optimizer and its checkpoints. Here they are in the state dict either way.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        eps: The least variance.
        learn_variance: Train the variances too, as the paper and RepDistiller do.
    """

    takes = "maps"
    exempt: ClassVar = {"zero_at_identity": "a likelihood, and a regressor before it"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        eps: Positive = 1e-5,
        learn_variance: bool = False,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.eps = eps
        pairs = list(zip(student_shapes, teacher_shapes, strict=True))
        self.regressors = nn.ModuleList(_regressor(s[0], t[0]) for s, t in pairs)
        start = math.log(math.expm1(_VARIANCE - eps))  # softplus of this is the variance less eps
        self.log_scales = nn.ParameterList(
            nn.Parameter(torch.full((t[0],), start), requires_grad=learn_variance) for _, t in pairs
        )

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        predicted, targets = self._sides(student, teacher)
        return vid(predicted, tuple(self.log_scales), targets, eps=self.eps)

    def compared(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the means that are predicted and the teacher's maps, [N, H, W, C]."""
        sides = zip(*self._sides(student, teacher), strict=True)
        return [(own.movedim(1, -1), shown.movedim(1, -1)) for own, shown in sides]

    def _sides(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        pairs = [pool_to_match(s, t) for s, t in levels(student, teacher)]
        predicted = [regress(s) for regress, (s, _) in zip(self.regressors, pairs, strict=True)]
        return predicted, [t for _, t in pairs]


def _regressor(student: int, teacher: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(student, teacher, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1, bias=False),
    )
