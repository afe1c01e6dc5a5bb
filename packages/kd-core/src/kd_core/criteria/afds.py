r"""AFDS: channels of the teacher's maps, weighted by a learned attention.

.. math::

   L =
   \sum_l\sum_c a_{lc}\,\Big\|\frac{F^s_{lc}}{\|F^s_{lc}\|}-\frac{F^t_{lc}}{\|F^t_{lc}\|}\Big\|^2

Mean over positions; a are shares of a learned attention over channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import (
    Maps,
    batch_mean,
    full_precision,
    levels,
    pool_to_match,
    require_same_channels,
    require_same_shape,
)


@full_precision
def afds(student: Maps, teacher: Maps, attention: Maps) -> Tensor:
    """Match the pattern of every channel, weighted by the channel's share of the attention.

    Wang et al., "Pay Attention to Features, Transfer Learn Faster CNNs", ICLR 2020 (OpenReview
    ryxyCeHtPB), in the form of KD-Zoo. Each channel of each sample is divided by its norm over
    positions; squared errors are means over positions and samples, summed over levels. The larger
    of two maps is average-pooled to the smaller.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep.
        teacher: As many maps of the same channels. No gradient flows into them.
        attention: For every level positive numbers [N, C], divided here by their sum over channels.

    Raises:
        UserError: If the numbers of levels or the channels differ.
    """
    attention = (attention,) if isinstance(attention, Tensor) else attention
    losses = []
    for (s, t), weight in zip(levels(student, teacher), attention, strict=True):
        s, t = (_normalised(maps) for maps in pool_to_match(s, t.detach()))
        require_same_shape(s, t)
        weight = weight / weight.sum(1, keepdim=True)
        losses.append(batch_mean(weight * (s - t).square().mean(2)))
    return torch.stack(losses).sum()


def _normalised(maps: Tensor) -> Tensor:
    """Divide every channel [H * W] of [N, C, H, W] by its norm."""
    maps = maps.flatten(2)
    return maps / (torch.linalg.vector_norm(maps, dim=2, keepdim=True) + 1e-6)


class AFDS(Criterion):
    """See `afds`; adds a squeeze-and-excitation block on the teacher's map per level.

    The attention is trained by the loss that it weights, so it may drift towards channels that
    agree already.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        hidden_ratio: Width of the blocks' hidden layer as a share of the channels.
    """

    takes = "maps"
    example: ClassVar = (((4, 8, 8), (6, 4, 4)), ((4, 8, 8), (6, 4, 4)))

    def __init__(
        self, student_shapes: Shapes, teacher_shapes: Shapes, *, hidden_ratio: Positive = 1.0
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.attention = nn.ModuleList(
            _squeeze_and_excite(shape[0], max(1, int(shape[0] * hidden_ratio)))
            for shape in teacher_shapes
        )

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject channels that differ."""
        super().check_shapes(student, teacher)
        require_same_channels("AFDS", student, teacher)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        pairs = zip(self.attention, teacher, strict=True)
        return afds(student, teacher, [attend(t.detach()).flatten(1) for attend, t in pairs])


def _squeeze_and_excite(channels: int, hidden: int) -> nn.Sequential:
    convolutions = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
    for convolution in convolutions:
        weight, bias = convolution.parameters()
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(bias)
    squeeze, excite = convolutions
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), squeeze, nn.ReLU(), excite, nn.Sigmoid())
