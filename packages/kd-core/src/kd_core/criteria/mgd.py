r"""MGD: the teacher's whole map, generated from a masked one of the student.

.. math::

   L = \tfrac1N\big\|G\big(m\odot r(F^s)\big)-F^t\big\|^2

m hides positions or channels at random, r is a convolution to the teacher's channels, G two more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kd_core.config.values import Share
from kd_core.criteria.aligners import aligners, require_same_sizes
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import Maps, batch_mean, full_precision, levels, require_same_shape


@full_precision
def mgd(student: Maps, teacher: Maps) -> Tensor:
    """Match generated maps by squared errors, summed over elements, mean over the batch.

    Yang et al., "Masked Generative Distillation", ECCV 2022, arXiv:2205.01529. Summed over levels
    too. The paper's alpha is an outer weight: 7e-5 for classification, for detection 2e-5 with
    one-stage and 5e-7 with two-stage detectors.

    Args:
        student: Map generated from the student's masked one, [N, C, H, W], or a tuple, shallow to
            deep.
        teacher: As many maps of the same shapes. No gradient flows into them.

    Raises:
        UserError: If the numbers of levels or the shapes differ.
    """
    losses = []
    for s, t in levels(student, teacher):
        require_same_shape(s, t)
        losses.append(batch_mean((s - t.detach()).square()))
    return torch.stack(losses).sum()


class MGD(Criterion):
    """See `mgd`; adds a generator per level, and a 1x1 convolution where channels differ.

    Every batch gets a new random mask. `batch["mask"]`, where it is given, is used instead: one
    tensor of zeros and ones, or a tuple with one for every level.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        mask: What is hidden: "channels", each as a whole, as the authors do for classification, or
            "positions", with all their channels, as they do for detection.
        ratio: Share of it that is hidden. The authors take 0.15 of the channels, and of the
            positions 0.65 for one-stage detectors, 0.45 for two-stage ones.

    Raises:
        UserError: If the sizes of the maps differ, or `mask` is something else.
    """

    takes = "maps"
    example: ClassVar = (((4, 8, 8), (6, 4, 4)), ((6, 8, 8), (6, 4, 4)))
    exempt: ClassVar = {
        "zero_at_identity": "a generator is between the two maps",
        "two_calls_agree": "the mask is drawn",
        "order_of_the_batch_does_not_matter": "the mask is drawn for each place in the batch",
        "cuda_agrees_with_cpu": "the mask is drawn, by another generator on each device",
    }

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        mask: Literal["channels", "positions"] = "channels",
        ratio: Share = 0.15,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        if mask not in ("channels", "positions"):
            raise UserError(f'MGD: mask is {mask!r}; it must be "channels" or "positions"')
        self.mask = mask
        self.ratio = ratio
        self.aligners = aligners(student_shapes, teacher_shapes)
        self.generators = nn.ModuleList(_generator(shape[0]) for shape in teacher_shapes)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject maps of different sizes."""
        super().check_shapes(student, teacher)
        require_same_sizes("MGD", student, teacher)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; of `batch`, `mask` is used if it is there."""
        aligned = [align(s) for align, s in zip(self.aligners, student, strict=True)]
        masks = batch["mask"] if "mask" in batch else [self._draw(maps) for maps in aligned]
        masks = (masks,) if isinstance(masks, Tensor) else masks
        parts = zip(self.generators, aligned, masks, strict=True)
        return mgd([generate(maps * mask) for generate, maps, mask in parts], teacher)

    def _draw(self, maps: Tensor) -> Tensor:
        """Return zeros where the maps are to be hidden, ones elsewhere."""
        samples, channels, *size = maps.shape
        shape = (samples, channels, 1, 1) if self.mask == "channels" else (samples, 1, *size)
        return torch.rand(shape, device=maps.device) >= self.ratio


def _generator(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
    )
