r"""CWD: each channel of the teacher as a distribution over positions.

.. math::

   L =
   \tau^2\sum_l\frac1{NC}\sum_{i,c}
   \mathrm{KL}\big(\sigma(F^t_{ic}/\tau)\,\|\,\sigma(F^s_{ic}/\tau)\big)

sigma is over positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_core.config.values import Positive
from kd_core.criteria.aligners import aligners, require_same_sizes
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import Maps, full_precision, kl_divergence, levels, require_same_shape


@full_precision
def cwd(student: Maps, teacher: Maps, *, temperature: float = 1.0) -> Tensor:
    """Match each channel's distribution over positions by KL(teacher || student).

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021,
    arXiv:2011.13256. Mean over samples and channels, times the squared temperature; summed over
    levels.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep, already of the teacher's shapes.
        teacher: As many maps. No gradient flows into them.
        temperature: Divides the maps.

    Raises:
        UserError: If the numbers of levels or the shapes differ.
    """
    losses = []
    for s, t in levels(student, teacher):
        require_same_shape(s, t)
        rows = ((maps / temperature).flatten(0, 1).flatten(1) for maps in (s, t.detach()))
        losses.append(kl_divergence(*(row.log_softmax(1) for row in rows)))
    return temperature**2 * torch.stack(losses).sum()


class CWD(Criterion):
    """See `cwd`; adds a 1x1 convolution where channels differ.

    The authors' weight for detectors is 10, on all levels of the pyramid.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        temperature: Divides the maps.

    Raises:
        UserError: If the sizes of the maps differ.
    """

    takes = "maps"

    def __init__(
        self, student_shapes: Shapes, teacher_shapes: Shapes, *, temperature: Positive = 1.0
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        require_same_sizes("CWD", student_shapes, teacher_shapes)
        self.temperature = temperature
        # No bias: it would not change a softmax over positions.
        self.aligners = aligners(student_shapes, teacher_shapes, bias=False)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        pairs = zip(self.aligners, student, strict=True)
        aligned = [align(maps) for align, maps in pairs]
        return cwd(aligned, teacher, temperature=self.temperature)
