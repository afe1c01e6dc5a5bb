r"""FitNet: the teacher's feature maps, regressed from the student's.

.. math::

   L = \sum_l\mathrm{mean}\big(r_l(F^s_l)-F^t_l\big)^2

F are maps, r is a convolution to the teacher's shape, trained with the student.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kd_core.criteria.aligners import aligners, require_same_sizes
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import Maps, full_precision, levels, mse


@full_precision
def fitnet(student: Maps, teacher: Maps) -> Tensor:
    """Match feature maps by their mean squared error, summed over levels.

    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv:1412.6550.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep, already of the teacher's shapes.
        teacher: As many maps. No gradient flows into them.

    Raises:
        UserError: If the numbers of levels or the shapes differ.
    """
    return torch.stack([mse(s, t.detach()) for s, t in levels(student, teacher)]).sum()


class FitNet(Criterion):
    """See `fitnet`; adds a regressor (convolution, BatchNorm, ReLU) per level.

    The one-stage variant: hint and task are learned at the same time. A level of 1x1 maps cannot
    be trained on a batch of one sample, since BatchNorm has no variance then.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        linear: For maps of both signs and any size, such as a feature pyramid's: in place of the
            regressor a 1x1 convolution where channels differ, and nothing where they do not.

    Raises:
        UserError: If a student map is smaller than the teacher's, but not by half; if `linear`, if
            it is of another size at all.
    """

    takes = "maps"
    exempt: ClassVar = {"zero_at_identity": "a regressor is between the two maps"}

    def __init__(
        self, student_shapes: Shapes, teacher_shapes: Shapes, *, linear: bool = False
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        if linear:
            require_same_sizes("FitNet(linear=True)", student_shapes, teacher_shapes)
            self.regressors = aligners(student_shapes, teacher_shapes)
            return
        pairs = zip(student_shapes, teacher_shapes, strict=True)
        self.regressors = nn.ModuleList(regressor(s, t) for s, t in pairs)

    def forward(self, student: Maps, teacher: Maps, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        return fitnet(self._predicted(student, teacher), teacher)

    def compared(self, student: Maps, teacher: Maps) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the channels at every position of the regressed maps, and of the teacher's."""
        predicted = self._predicted(student, teacher)
        return [(s.movedim(1, -1), t.movedim(1, -1)) for s, t in levels(predicted, teacher)]

    def _predicted(self, student: Maps, teacher: Maps) -> tuple[Tensor, ...]:
        maps = zip(self.regressors, levels(student, teacher), strict=True)
        return tuple(regress(s) for regress, (s, _) in maps)


def regressor(
    student: Sequence[int],
    teacher: Sequence[int],
    *,
    activation: bool = True,
    hidden: int | None = None,
) -> nn.Sequential:
    """Return a module that brings a map of the student's shape to the teacher's shape.

    Args:
        student: [C, H, W].
        teacher: [C, H, W].
        activation: End in a ReLU, after convolution and BatchNorm.
        hidden: Channels of a bottleneck: three convolutions in place of one, the middle one 3x3 or
            of the size that brings one map to the other's.

    Raises:
        UserError: If the student's map is smaller than the teacher's, but not by half.
    """
    convolution = _convolution(student, teacher)
    if hidden is not None:
        convolution = _bottleneck(student, teacher, hidden)
    layers = [convolution, nn.BatchNorm2d(teacher[0])]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if activation else []))


def _bottleneck(student: Sequence[int], teacher: Sequence[int], hidden: int) -> nn.Module:
    middle: nn.Module = nn.Conv2d(hidden, hidden, 3, padding=1)
    if list(student[1:]) != list(teacher[1:]):
        middle = _convolution((hidden, *student[1:]), (hidden, *teacher[1:]))
    ends = nn.Conv2d(student[0], hidden, 1), nn.Conv2d(hidden, teacher[0], 1)
    return nn.Sequential(ends[0], middle, ends[1])


def _convolution(student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    (inputs, height, width), (outputs, *target) = student, teacher
    if [height, width] == [2 * side for side in target]:
        return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    if [2 * height, 2 * width] == target:
        return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    kernel = (1 + height - target[0], 1 + width - target[1])
    if min(kernel) < 1:
        raise UserError(
            f"no regressor from the student's {height}x{width} map to the teacher's "
            f"{target[0]}x{target[1]}; tap a student map of half that size, or of at least it"
        )
    return nn.Conv2d(inputs, outputs, kernel)
