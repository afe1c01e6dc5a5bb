r"""KDSVD: the leading singular vectors of the maps, and how they change from level to level.

.. math::

   L = \sum_l\|R^s_l-R^t_l\|^2,\qquad R_l = \exp\!\big({-}(v_{l+1}-v_l)^2/8\big)

v are leading right singular vectors of a map, scaled by their singular values; a radial basis
function of every two entries of consecutive levels.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from torch import Tensor

from kd_core.config.values import PositiveInt
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import Maps, batch_mean, full_precision, levels


@full_precision
def kdsvd(student: Maps, teacher: Maps, *, k: int = 1) -> Tensor:
    """Match Gaussian relations between the singular vectors of consecutive levels.

    Lee et al., "Self-supervised Knowledge Distillation Using Singular Value Decomposition",
    ECCV 2018, arXiv:1807.06819. A map is read as a [C * H, W] matrix, as in mdistiller
    (RepDistiller: [H * W, C]); of its right singular vectors the teacher gives k, and the student
    those of its k + 3 that are most like them.

    Differs from the references: the largest component of a teacher's vector is positive (theirs
    has the sign that the SVD happened to give, on which the value depends); a NaN is not replaced
    by 0; and the gradient stays finite where singular values are equal.

    Args:
        student: Two maps [N, C, H, W] or more, shallow to deep.
        teacher: As many maps, of the same widths. No gradient flows into them.
        k: Singular vectors of the teacher.

    Raises:
        UserError: If there are not two levels at least, or the widths differ.
    """
    pairs = levels(student, teacher)
    _require_levels([s.shape[-1] for s, _ in pairs], [t.shape[-1] for _, t in pairs])
    vectors = [_align(s, t.detach(), k) for s, t in pairs]
    terms = [
        batch_mean((_relation(*student) - _relation(*teacher)).square())
        for student, teacher in (zip(*pair, strict=True) for pair in pairwise(vectors))
    ]
    return torch.stack(terms).sum()


def _align(student: Tensor, teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return k vectors of each side, [N, W, k], scaled by the teacher's singular values."""
    candidates, _ = _leading(student, k + 3)
    vectors, values = _leading(teacher, k)
    vectors = vectors * vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
    cosine = (candidates.mT @ vectors).detach()
    chosen = cosine.sign() * (cosine.abs() == cosine.abs().amax(1, keepdim=True))
    scale = F.normalize(values, dim=1).unsqueeze(1)
    return candidates @ chosen * scale, vectors * scale


def _leading(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first right singular vectors [N, W, count] and singular values [N, count]."""
    rows = maps.flatten(1, 2)
    gram = rows.mT @ rows.detach()  # its eigenvectors are what we need; it is only W x W
    constant = gram.detach()
    change = gram - constant  # worth 0
    # One factor is constant: the sum with the transpose has the whole derivative, and the backward
    # reads the map once and not twice.
    change = change + change.mT
    # The solver raises at a NaN, so it gets 0 here; `change` brings the NaN back.
    values, vectors = torch.linalg.eigh(constant.nan_to_num(0.0, 0.0, 0.0))
    values, vectors = values.flip(1).clamp(min=0), vectors.flip(2)
    leading = vectors[:, :, :count]
    # First-order perturbation: worth 0, but its derivative is the eigenvectors', with 1 / gap
    # damped. Gaps under 1e-4 of the largest eigenvalue are noise, and at 0 torch's own is NaN.
    largest = values[:, :1, None].clamp(min=torch.finfo(values.dtype).tiny)
    gap = (values[:, None, :count] - values[:, :, None]) / largest
    turn = vectors.mT @ (change / largest) @ leading * gap / (gap.square() + 1e-8)
    return leading + vectors @ turn, values[:, :count].sqrt()


def _relation(before: Tensor, after: Tensor) -> Tensor:
    """Relate each component of each vector to each of the level before: [N, W, V, k]."""
    return (-(after.unsqueeze(2) - before.unsqueeze(1)).square() / 8).exp()


def _require_levels(student: Sequence[int], teacher: Sequence[int]) -> None:
    """Reject a single level, and widths that differ."""
    if len(student) < 2:
        raise UserError("KDSVD relates consecutive levels; tap two maps of each network at least")
    if list(student) != list(teacher):
        raise UserError(
            f"KDSVD needs maps of equal widths, but the student's are {list(student)} and the "
            f"teacher's {list(teacher)}; tap levels of equal size, or use AT, NST or VID"
        )


class KDSVD(Criterion):
    """See `kdsvd`.

    Args:
        k: Singular vectors of the teacher.
    """

    takes = "maps"
    exempt: ClassVar = {"nothing_is_read_back": "the eigenvalue solver reads its error code back"}

    def __init__(self, *, k: PositiveInt = 1) -> None:
        super().__init__()
        self.k = k

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject a single level, and levels of different widths."""
        super().check_shapes(student, teacher)
        _require_levels([shape[-1] for shape in student], [shape[-1] for shape in teacher])

    def forward(self, student: Maps, teacher: Maps, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        return kdsvd(student, teacher, k=self.k)
