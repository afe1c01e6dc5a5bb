"""BinaryKD, MaskKD: probabilities of a sigmoid at every position of maps."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.config.values import Positive
from kd_core.criteria.aligners import require_same_sizes
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import Maps, full_precision, levels, require_same_shape
from torch import Tensor


@full_precision
def binary_kd(student: Maps, teacher: Maps, *, temperature: float = 1.0) -> Tensor:
    """Match the probabilities that a sigmoid gives, by KL(teacher || student) of two outcomes.

    Hinton's softened targets for outputs that are not of one softmax, such as the objectness of
    anchors (Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation",
    NeurIPS 2017) or the pixels of a mask. Mean over all elements of a level, times the squared
    temperature; summed over levels; 0 for a level without any. The gradient is that of the
    binary cross-entropy with the teacher's probabilities as targets.

    Args:
        student: Logits [N, C, H, W], or a tuple of levels.
        teacher: As many of the same shapes. No gradient flows into them.
        temperature: Divides the logits.

    Raises:
        UserError: If the numbers of levels or the shapes differ.
    """
    losses = []
    for s, t in levels(student, teacher):
        require_same_shape(s, t)
        s, t = s / temperature, t.detach() / temperature
        yes = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
        no = (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
        losses.append((yes + no).sum() / max(s.numel(), 1))
    return temperature**2 * torch.stack(losses).sum()


class BinaryKD(Criterion):
    """See `binary_kd`: for logits of independent probabilities, as an RPN's (`@rpn_logits`).

    Args:
        temperature: Divides the logits.
    """

    takes = "maps"
    example: ClassVar[tuple[Shapes, Shapes]] = (((4, 8, 8), (2, 4, 4)),) * 2

    def __init__(self, *, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject maps of other channels or sizes: single probabilities are compared."""
        super().check_shapes(student, teacher)
        for s, t in zip(student, teacher, strict=True):
            self._check_channels(s[0], t[0])
        require_same_sizes(type(self).__name__, student, teacher)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of logits [N, C, H, W]; `batch` is not used."""
        return binary_kd(student, teacher, temperature=self.temperature)

    def _check_channels(self, student: int, teacher: int) -> None:
        if student != teacher:
            raise UserError(
                f"{type(self).__name__}: the student's logits have {student} channels, the "
                f"teacher's {teacher}; both need the same classes or anchors"
            )


class MaskKD(BinaryKD):
    """Match the masks of regions: see `binary_kd`, in the channel of each region's true class.

    Mask R-CNN is trained in that channel alone, so the others say nothing. From `batch` it needs
    `label`, the classes of the regions, int64 [R]. A head whose masks do not depend on the class
    has one channel, which is compared with that of the class.

    Args:
        temperature: Divides the logits.
    """

    example = ((3, 4, 4),), ((3, 4, 4),)
    reads_classes = True
    exempt: ClassVar[Mapping[str, str]] = {
        "nan_is_not_hidden": "the channels of other classes are not read",
    }

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of logits [R, C, H, W] and `batch["label"]` [R]."""
        sides = (tuple(_of_class(maps, batch["label"]) for maps in s) for s in (student, teacher))
        return binary_kd(*sides, temperature=self.temperature)

    def _check_channels(self, student: int, teacher: int) -> None:
        if 1 not in (student, teacher):
            super()._check_channels(student, teacher)


def _of_class(maps: Tensor, label: Tensor) -> Tensor:
    """Return the channel of each region's class, [R, H, W]."""
    if maps.shape[1] == 1:
        return maps[:, 0]
    rows = torch.arange(len(maps), device=maps.device)
    return maps[rows, label]
