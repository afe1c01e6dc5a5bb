r"""FT: factors of the teacher's last map, extracted by a paraphraser that is trained first.

.. math::

   L = \mathrm{mean}\Big|\frac{f^s}{\|f^s\|}-\frac{f^t}{\|f^t\|}\Big|^p

f are factors: of the teacher's map by a paraphraser that is trained first, of the student's by a
translator.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import (
    Maps,
    full_precision,
    levels,
    mse,
    pool_to_match,
    require_same_shape,
    spatial_attention,
)


@full_precision
def ft(student: Maps, teacher: Maps, *, p1: float = 2, p2: float = 1) -> Tensor:
    """Match where the factors of two networks are large.

    Kim et al., "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS
    2018, arXiv:1802.04977. The difference of what `spatial_attention` makes of the two, a mean over
    samples and positions, summed over levels. The larger is average-pooled to the smaller first.

    Differs from the paper, as RepDistiller's code does: there a factor is divided by its norm over
    channels and positions, without a mean over channels.

    Args:
        student: Factors [N, C, H, W], one map or a tuple, shallow to deep.
        teacher: As many factors of any channels. No gradient flows into them.
        p1: Power of the factors' absolute values.
        p2: Power of the difference.

    Raises:
        UserError: If the numbers of levels or the batches differ.
    """
    losses = []
    for s, t in levels(student, teacher):
        s, t = (spatial_attention(maps, power=p1) for maps in pool_to_match(s, t.detach()))
        require_same_shape(s, t)
        losses.append((s - t).abs().pow(p2).sum() / max(s.numel(), 1))
    return torch.stack(losses).sum()


class FT(Criterion):
    """See `ft`; adds a translator, which extracts factors from the student's map.

    The teacher's factors come from the frozen encoder of a paraphraser. An earlier phase trains it
    (see `Paraphraser`); load it with the term's `weights`.

    Args:
        student_shapes: [C, H, W] of the one tapped map.
        teacher_shapes: [C, H, W] of the one tapped map.
        rate: Channels of a factor as a share of the teacher's.
    """

    takes = "maps"
    example: ClassVar = (((4, 8, 8),), ((6, 4, 4),))
    trained_before = ("paraphraser",)
    exempt: ClassVar = {"zero_at_identity": "the two pass through different modules first"}

    def __init__(
        self, student_shapes: Shapes, teacher_shapes: Shapes, *, rate: Positive = 0.5
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.paraphraser = _Autoencoder(teacher_shapes[0][0], rate).requires_grad_(False)
        inputs, factors = student_shapes[0][0], self.paraphraser.factors
        self.translator = _convolutions(nn.Conv2d, inputs, inputs, factors, factors, normalise=True)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject more than one map."""
        super().check_shapes(student, teacher)
        _require_one_map("FT", teacher)

    def train(self, mode: bool = True) -> "FT":
        """Set the mode of all but the paraphraser, which stays in evaluation mode."""
        super().train(mode)
        self.paraphraser.eval()
        return self

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of one map [N, C, H, W] each; `batch` is not used."""
        factor = self.paraphraser.encoder(teacher[0].detach())
        return ft(self.translator(student[0]), factor)


class Paraphraser(Criterion):
    """Learns to extract the factors that `FT` transfers, in the phase before it.

    The loss is the mean squared error with which a decoder restores the teacher's map from its
    factor. The student is not used; its taps may be empty.

    Args:
        teacher_shapes: [C, H, W] of the one tapped map.
        rate: Channels of a factor as a share of the teacher's.
    """

    takes = "maps"
    example: ClassVar = ((), ((6, 8, 8),))
    exempt: ClassVar = {"zero_at_identity": "there is no student; it restores the teacher's map"}

    def __init__(self, teacher_shapes: Shapes, *, rate: Positive = 0.5) -> None:
        super().__init__()
        self.check_shapes((), teacher_shapes)
        self.paraphraser = _Autoencoder(teacher_shapes[0][0], rate)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but one map of the teacher; the student may be anything."""
        super().check_shapes(teacher, teacher)
        _require_one_map("Paraphraser", teacher)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of the teacher's map [N, C, H, W]; nothing else is used."""
        target = teacher[0].detach()
        return mse(self.paraphraser.decoder(self.paraphraser.encoder(target)), target)


class _Autoencoder(nn.Module):
    def __init__(self, channels: int, rate: float) -> None:
        super().__init__()
        factors = self.factors = max(1, int(rate * channels))
        self.encoder = _convolutions(nn.Conv2d, channels, channels, factors, factors)
        self.decoder = _convolutions(nn.ConvTranspose2d, factors, factors, channels, channels)


def _convolutions(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], *widths: int, normalise: bool = False
) -> nn.Sequential:
    """Return 3x3 convolutions from width to width, each with a LeakyReLU after it."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(kind(inputs, outputs, 3, padding=1))
        layers += [nn.BatchNorm2d(outputs)] if normalise else []
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


def _require_one_map(name: str, shapes: Shapes) -> None:
    if len(shapes) != 1:
        raise UserError(f"{name} takes one map, got {len(shapes)}; tap the last: @stages[-1]")
