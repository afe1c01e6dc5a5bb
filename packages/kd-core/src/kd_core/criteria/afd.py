r"""AFD: every teacher map teaches the student maps that attend to it.

.. math::

   L = \sum_{i,j}\alpha_{ij}\,\big\|\bar e(F^t_i)-\bar e(F^s_j)\big\|^2,
   \qquad \alpha_{i\cdot}=\mathrm{softmax}_j\big(q_i^\top W k_j\big)

e is the mean square of a map's channels at the teacher's size, with unit length; queries q are
made of the teacher's maps, keys k of the student's.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import PositiveInt
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import batch_mean, spatial_attention


class AFD(Criterion):
    """Match where the maps have their energy, weighted by a learned attention between the maps.

    Ji et al., "Show, Attend and Distill: Knowledge Distillation via Attention-based Feature
    Matching", AAAI 2021, arXiv:2102.02973. Each teacher map is a query, each student map a key; the
    attention of a query over all keys weights the mean squared differences of the maps' energies
    (mean square over channels, pooled to the teacher's size, unit norm). Summed over the teacher's
    maps. Numbers, channels and sizes of the maps may all differ.

    BatchNorm has no variance of a batch of one sample; its running statistics are used then, where
    the authors' code stops with an error.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        dim: Length of queries and keys.
    """

    takes = "maps"
    example: ClassVar = (((4, 8, 8), (6, 4, 4), (6, 4, 4)), ((6, 8, 8), (8, 4, 4)))
    exempt: ClassVar = {"zero_at_identity": "every map attends a little to the others too"}

    def __init__(
        self, student_shapes: Shapes, teacher_shapes: Shapes, *, dim: PositiveInt = 128
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.teacher_places = nn.Parameter(torch.empty(len(teacher_shapes), dim))
        self.student_places = nn.Parameter(torch.empty(len(student_shapes), dim))
        for places in (self.teacher_places, self.student_places):
            nn.init.xavier_normal_(places)
        self.keys = nn.ModuleList(_embedding(shape[0], dim) for shape in student_shapes)
        self.match = _embedding(dim, dim * len(teacher_shapes))
        self.queries = nn.ModuleList(_embedding(shape[0], dim) for shape in teacher_shapes)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but maps; the numbers of maps may differ."""
        self._check_kinds("student", student)
        self._check_kinds("teacher", teacher)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        teacher = [maps.detach() for maps in teacher]
        return batch_mean(self.attention(student, teacher) * _distances(student, teacher))

    def attention(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return how much each teacher map looks at each student map, [N, T, S]; 1 over S."""
        queries = torch.stack(
            [query(_pooled(maps)) for query, maps in zip(self.queries, teacher, strict=True)], 1
        )
        keys = torch.stack(
            [key(_pooled(maps)).relu() for key, maps in zip(self.keys, student, strict=True)], 1
        )
        number, dim = queries.shape[1:]
        matches = self.match(keys.flatten(0, 1)).view(*keys.shape[:2], number, dim)
        scores = torch.einsum("nstd,ntd->nts", matches, queries)
        scores = scores + self.teacher_places @ self.student_places.mT
        return (scores / math.sqrt(dim)).softmax(2)


class _BatchNorm(nn.BatchNorm1d):
    """BatchNorm that uses its running statistics for fewer than two rows."""

    def forward(self, rows: Tensor) -> Tensor:
        if len(rows) > 1:
            return super().forward(rows)
        statistics = self.running_mean, self.running_var
        return F.batch_norm(rows, *statistics, self.weight, self.bias, eps=self.eps)


def _embedding(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), _BatchNorm(outputs))


def _pooled(maps: Tensor) -> Tensor:
    return maps.mean((2, 3))


def _distances(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the mean squared difference [N, T, S] of the energies of every two maps."""
    energies = [maps.square().mean(1, keepdim=True) for maps in student]
    resized: dict[tuple[int, int], Tensor] = {}  # to each size among the teacher's maps
    distances = []
    for maps in teacher:
        size = (maps.shape[2], maps.shape[3])
        if size not in resized:
            rows = [F.adaptive_avg_pool2d(energy, size).flatten(1) for energy in energies]
            resized[size] = torch.stack([F.normalize(row) for row in rows], 1)
        target = spatial_attention(maps).unsqueeze(1)
        distances.append((resized[size] - target).square().mean(2))
    return torch.stack(distances, 1)
