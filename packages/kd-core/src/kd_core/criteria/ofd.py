r"""OFD: maps before the activation, with the teacher's negative responses cut at a margin.

.. math::

   L = \sum_l 2^{-(n-l)}\,\tfrac1N\sum\big(r_l(F^s_l)-w\big)^2,
   \qquad w=\begin{cases}F^t&F^t>0\\\min(F^s,\max(F^t,m))&F^t\le0\end{cases}

F are maps before the activation, m is a margin for each channel, the mean of its negative
responses as the BatchNorm expects it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.criteria.batchnorms import find_batchnorm
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import (
    Maps,
    full_precision,
    halving_sum,
    levels,
    require_same_shape,
)


@full_precision
def ofd(student: Maps, teacher: Maps, margins: Maps) -> Tensor:
    """Match positive responses; of negative ones, only push down what is above the teacher's.

    Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, arXiv:1904.01866.
    Squared errors, summed over channels and positions; each level counts half of the next deeper
    one. The teacher's map is average-pooled to the size of the student's.

    Args:
        student: Map before the activation [N, C, H, W], or a tuple, shallow to deep, already of
            the teacher's channels.
        teacher: As many maps of those channels. No gradient flows into them.
        margins: For every level one value a channel, [C], at which the teacher's map is cut; see
            `margin`.

    Raises:
        UserError: If the numbers of levels or the channels differ.
    """
    margins = (margins,) if isinstance(margins, Tensor) else margins
    pairs = zip(levels(student, teacher), margins, strict=True)
    losses = [_partial_distance(s, t.detach(), least) for (s, t), least in pairs]
    return halving_sum(losses)


def _partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    teacher = F.adaptive_avg_pool2d(teacher, (student.shape[2], student.shape[3]))
    require_same_shape(student, teacher)
    with torch.no_grad():  # where the student's responses would have to be
        least = teacher.maximum(margin.view(-1, 1, 1))
        wanted = torch.where(teacher > 0, teacher, student.minimum(least))
    return F.mse_loss(student, wanted, reduction="sum") / max(len(student), 1)


@full_precision
def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Return the mean of the negative part of what a BatchNorm gives, [C].

    That is E[x | x < 0] of a normal distribution of mean `bias` and deviation |`weight`|. Where
    less than a thousandth of it is negative, it is -3 deviations, as in the authors' code. Unlike
    there, a weight of 0 (a dead channel) gives the limit: its bias, the only value of its output,
    where that is negative, else 0.

    Args:
        weight: Of the BatchNorm, [C].
        bias: Of the BatchNorm, [C].
    """
    deviation = weight.abs()
    ratio = bias / deviation  # NaN where both are 0, for which nothing counts as negative
    negative = torch.special.ndtr(-ratio)  # the share of it
    density = torch.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
    return torch.where(negative > 0.001, bias - deviation * density / negative, -3 * deviation)


class OFD(Criterion):
    """See `ofd`; adds a connector (1x1 convolution, BatchNorm) per level.

    Differs from the authors' code: the teacher's BatchNorms use their running statistics; theirs
    stay in training mode. Every margin belongs to its level; theirs are counted from the first
    BatchNorm and the maps from the last.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        batchnorms: Paths of the teacher's BatchNorms before each tapped map, one per level; by
            default they are found from the taps.
    """

    takes = "maps"
    exempt: ClassVar = {"zero_at_identity": "a connector is between the two maps"}
    margins: Tensor

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        batchnorms: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.batchnorms = batchnorms
        self.channels = [shape[0] for shape in teacher_shapes]
        pairs = zip(student_shapes, self.channels, strict=True)
        self.connectors = nn.ModuleList(_connector(s[0], channels) for s, channels in pairs)
        self.register_buffer("margins", torch.full((sum(self.channels),), torch.nan))
        self._bound = False

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Compute the margins from the teacher's BatchNorms.

        Raises:
            UserError: If one is not found, or has other channels than its map.
        """
        paths = taps[1] if self.batchnorms is None else self.batchnorms
        if len(paths) != len(self.channels):
            raise UserError(
                f"OFD has {len(self.channels)} levels; batchnorms={paths} must be as many"
            )
        margins = []
        for path, channels in zip(paths, self.channels, strict=True):
            weight, bias = find_batchnorm(teacher, path)
            if len(weight) != channels:
                raise UserError(
                    f"OFD makes its margins from the BatchNorm before each map of the teacher, but "
                    f"{path!r} leads to none of {channels} channels; name them, one per tap: "
                    "criterion.batchnorms=['layer1.2.bn2', ...], or take another teacher"
                )
            margins.append(margin(weight, bias))
        self.margins.copy_(torch.cat(margins))
        self._bound = True

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        if not self._bound:
            raise UserError("OFD has no margins yet: call bind(student, teacher, taps) first")
        maps = zip(self.connectors, levels(student, teacher), strict=True)
        connected = [connect(s) for connect, (s, _) in maps]
        return ofd(connected, teacher, self.margins.split(self.channels))


def _connector(student: int, teacher: int) -> nn.Sequential:
    convolution = nn.Conv2d(student, teacher, 1, bias=False)
    nn.init.normal_(convolution.weight, std=math.sqrt(2 / teacher))
    return nn.Sequential(convolution, nn.BatchNorm2d(teacher))
