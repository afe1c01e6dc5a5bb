r"""ReviewKD: each level of the teacher, learned from that level of the student and all deeper.

.. math::

   L = \sum_l\mathrm{HCL}\big(f_l(F^s_l,\dots,F^s_n),\,F^t_l\big),
   \quad \mathrm{HCL}(x,y)
   =\sum_k 2^{-k}\,\mathrm{mean}\big(P_k x-P_k y\big)^2\Big/\sum_k 2^{-k}

f fuses a level of the student with all deeper ones; P pools to the whole, 4 x 4, 2 x 2 and 1 x 1
positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import PositiveInt
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import Maps, full_precision, levels, mse


@full_precision
def hcl(student: Maps, teacher: Maps) -> Tensor:
    """Match maps at their own size and pooled to 4x4, 2x2 and 1x1, by mean squared errors.

    The hierarchical context loss of Chen et al., "Distilling Knowledge via Knowledge Review",
    CVPR 2021, arXiv:2104.09044. Each size weighs half of the one before it, the weights of a level
    sum to one, and sizes not below the map's height are left out. Summed over levels.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep.
        teacher: As many maps of the same shapes. No gradient flows into them.

    Raises:
        UserError: If the numbers of levels or the shapes differ.
    """
    return torch.stack([_pyramid(s, t.detach()) for s, t in levels(student, teacher)]).sum()


def _pyramid(student: Tensor, teacher: Tensor) -> Tensor:
    losses = [mse(student, teacher)]
    for size in (4, 2, 1):
        if size < student.shape[2]:
            pooled = (F.adaptive_avg_pool2d(maps, size) for maps in (student, teacher))
            losses.append(mse(*pooled))
    weights = [0.5**step for step in range(len(losses))]
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    return torch.stack(weighted).sum() / sum(weights)


class ReviewKD(Criterion):
    """See `hcl`; adds a fusion block per level, from the deepest to the shallowest.

    The deepest level is usually the pooled vector as a 1x1 map. It cannot be trained on a batch of
    one sample, since BatchNorm has no variance then.

    Differs from mdistiller: `max_mid_channel` has an effect; there it is in the configs, but the
    width is always 512.

    Args:
        student_shapes: [C, H, W] of each tapped map, shallow to deep.
        teacher_shapes: [C, H, W] of each tapped map, shallow to deep.
        max_mid_channel: Width of the fused maps, unless the student's deepest level has less.
    """

    takes = "maps"
    example: ClassVar = (((4, 8, 8), (6, 4, 4), (6, 1, 1)), ((6, 8, 8), (8, 8, 8), (8, 1, 1)))
    exempt: ClassVar = {
        "zero_at_identity": "fusion blocks are between the maps",
        "single_sample_is_finite": "BatchNorm has no variance of a single 1x1 map",
    }

    def __init__(
        self, student_shapes: Shapes, teacher_shapes: Shapes, *, max_mid_channel: PositiveInt = 512
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        middle = min(max_mid_channel, student_shapes[-1][0])
        pairs = zip(reversed(student_shapes), reversed(teacher_shapes), strict=True)
        self.abfs = nn.ModuleList(
            _Fusion(s[0], middle, t[0], deepest=depth == 0) for depth, (s, t) in enumerate(pairs)
        )

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        reviewed: list[Tensor] = []
        fused = None
        pairs = reversed(levels(student, teacher))
        for fuse, (maps, target) in zip(self.abfs, pairs, strict=True):
            output, fused = fuse(maps, fused, target.shape[2:])
            reviewed.insert(0, output)
        return hcl(reviewed, teacher)


class _Fusion(nn.Module):
    """Fuses a student's map with what the deeper levels gave, by attention."""

    def __init__(self, inputs: int, middle: int, outputs: int, *, deepest: bool) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, middle, 1)
        self.conv2 = _convolution(middle, outputs, 3)
        if not deepest:
            self.att_conv = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())

    def forward(
        self, maps: Tensor, deeper: Tensor | None, size: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """Return the map to compare with the teacher's, and the fused one for the next level.

        Args:
            maps: The student's, [N, inputs, H, W].
            deeper: The fused map of the next deeper level, [N, middle, any height, any width].
            size: Height and width of the teacher's map.
        """
        fused = self.conv1(maps)
        if deeper is not None:
            deeper = F.interpolate(deeper, fused.shape[2:], mode="nearest")
            attention = self.att_conv(torch.cat([fused, deeper], 1))
            fused = fused * attention[:, :1] + deeper * attention[:, 1:]
        if fused.shape[2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.conv2(fused), fused


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
