r"""Theia: the whole map of a foundation model, by its direction and its values.

.. math::

   L = 0.9\,\big(1-\cos(P F^s,F^t)\big)+0.1\ \mathrm{smooth}_{L_1}(P F^s,F^t)

The cosine is one for each image, over all positions and channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.aligners import project_maps
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision, require_same_shape


@full_precision
def theia(
    student: Tensor,
    teacher: Tensor,
    *,
    cosine_weight: float = 0.9,
    smooth_l1_weight: float = 0.1,
) -> Tensor:
    """Match features by one cosine for each image, and by the smooth L1 distance of all elements.

    Shang et al., "Theia: Distilling Diverse Vision Foundation Models for Robot Learning", CoRL
    2024, arXiv:2407.20179. The cosine is that of all positions together, not one for each.

    Args:
        student: Features of the teacher's shape, [N, ...].
        teacher: Features, [N, ...]. No gradient flows into them.
        cosine_weight: Factor of 1 - cosine, mean over images.
        smooth_l1_weight: Factor of the smooth L1 distance, mean over elements.

    Raises:
        UserError: If the shapes differ.
    """
    require_same_shape(student, teacher)
    teacher = teacher.detach()
    cosine = F.cosine_similarity(student.flatten(1), teacher.flatten(1))
    distance = F.smooth_l1_loss(student, teacher, reduction="sum") / max(student.numel(), 1)
    return cosine_weight * batch_mean(1 - cosine) + smooth_l1_weight * distance


class Theia(Criterion):
    """See `theia`; adds Theia's head of two convolutions to the student's map.

    Its authors take equal heights and widths, or (transposed) convolutions between the sizes of
    their networks; here what the head gives is brought to the teacher's size, bilinearly.

    Args:
        student_shapes: [C, H, W] of the tapped map; the head has weights for each position, so all
            images must have one size.
        teacher_shapes: [C, H, W] of the tapped map.
        hidden_factor: The head's width is the student's channels times this.
        cosine_weight: Factor of 1 - cosine, mean over images.
        smooth_l1_weight: Factor of the smooth L1 distance, mean over elements.

    Raises:
        UserError: If there are several maps, or the factor leaves no channel.
    """

    takes = "maps"
    example: ClassVar = (((4, 8, 8),), ((6, 4, 4),))
    exempt: ClassVar = {"zero_at_identity": "a head is between the two maps"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        hidden_factor: Positive = 1.0,
        cosine_weight: NonNegative = 0.9,
        smooth_l1_weight: NonNegative = 0.1,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        channels, *size = student_shapes[0]
        width = int(channels * hidden_factor)
        if width < 1:
            raise UserError(
                f"Theia: hidden_factor {hidden_factor} leaves nothing of {channels} channels; "
                "raise it"
            )
        self.size = tuple(size)
        self.convolutions = nn.Sequential(
            nn.LayerNorm([channels, *size]),
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.LayerNorm([width, *size]),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.LayerNorm([width, *size]),
        )
        self.projection = nn.Linear(width, teacher_shapes[0][0])
        self.weights = {"cosine_weight": cosine_weight, "smooth_l1_weight": smooth_l1_weight}

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject more than one map."""
        super().check_shapes(student, teacher)
        if len(student) != 1:
            raise UserError(
                f"Theia takes one map of each network, but gets {len(student)}; write a term for "
                "each level"
            )

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of one map [N, C, H, W] of each network; `batch` is not used.

        Raises:
            UserError: If the student's map has another size than at first.
        """
        ((own, shown),) = self.compared(student, teacher)
        return theia(own, shown, **self.weights)

    def compared(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the maps of both, [N, h, w, D]."""
        if tuple(student[0].shape[2:]) != self.size:
            raise UserError(
                f"Theia: the student's map is {list(student[0].shape[2:])}, but its head was made "
                f"for {list(self.size)}; train on images of one size"
            )
        target = teacher[0].detach().movedim(1, -1)
        own = project_maps(self.projection, self.convolutions(student[0]), target.shape[1:3])
        return ((own, target),)
