r"""PKD: feature maps that correlate with the teacher's, channel by channel.

.. math::

   L = \sum_l\tfrac12\,\mathrm{mean}\big(\hat F^s_l-\hat F^t_l\big)^2

F̂ has mean 0 and deviation 1 in each channel, over batch and positions: 1 less the correlation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kd_core.criteria.aligners import aligners
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import Maps, full_precision, levels, mse


@full_precision
def pkd(student: Maps, teacher: Maps) -> Tensor:
    """Match maps whose channels are standardised over the batch, by half the mean squared error.

    Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
    Coefficient", NeurIPS 2022, arXiv:2207.02039. Up to a factor, this is 1 minus the correlation of
    the two. Summed over levels. Where the sizes differ, the student's map is resized (bilinear).
    The statistics are those of the batch of one GPU: the authors' has 2 images.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep, of the teacher's channels.
        teacher: As many maps. No gradient flows into them.

    Raises:
        UserError: If the numbers of levels or the channels differ.
    """
    return torch.stack([_distance(s, t.detach()) for s, t in levels(student, teacher)]).sum()


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    size = teacher.shape[2:]
    if student.shape[2:] != size:
        student = F.interpolate(student, size, mode="bilinear", align_corners=False)
    return mse(standardize(student), standardize(teacher)) / 2


def standardize(maps: Tensor) -> Tensor:
    """Give every channel of maps [N, C, H, W] mean 0 and deviation 1 over the batch."""
    deviation, mean = channel_statistics(maps)
    return (maps - mean) / (deviation + 1e-6)


def channel_statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return deviation and mean of every channel of maps [N, C, H, W], each [1, C, 1, 1].

    The deviation is the unbiased one; 0 of a single value.
    """
    values = maps.numel() // max(maps.shape[1], 1)
    if values == 0:  # an empty batch: nothing is standardised with them
        nothing = maps.new_zeros(1, maps.shape[1], 1, 1)
        return nothing, nothing
    deviation, mean = torch.std_mean(maps, (0, 2, 3), correction=min(values - 1, 1), keepdim=True)
    return deviation, mean


class PKD(Criterion):
    """See `pkd`; adds a 1x1 convolution where channels differ.

    Differs from the authors' code, which takes equal channels only. The authors' weight is 6 for
    Faster R-CNN (P2 to P5) and 10 for RetinaNet (P3 to P6).

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
    """

    takes = "maps"

    def __init__(self, student_shapes: Shapes, teacher_shapes: Shapes) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        # No bias: it would be subtracted again.
        self.aligners = aligners(student_shapes, teacher_shapes, bias=False)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        pairs = zip(self.aligners, student, strict=True)
        return pkd([align(maps) for align, maps in pairs], teacher)
