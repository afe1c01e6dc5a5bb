r"""RKD: the distances and angles inside the batch.

.. math::

   L = \lambda_d\,H\!\Big(\frac{\|f_i-f_j\|}{\mu}\Big)
   +\lambda_a\,H\big(\cos\angle f_if_jf_k\big)

H is the Huber loss between student's and teacher's values, mu the mean distance of a network's
vectors; over all pairs and all triplets of a batch.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kd_core.config.values import NonNegative
from kd_core.criteria.criterion import Criterion
from kd_core.functional import full_precision, require_same_shape
from kd_core.runtime.distributed import gather_rows, gather_with_gradient

# Cosines computed at once: what fits into a CPU's cache; on a GPU, enough work for one launch.
_CACHED, _LAUNCHED = 2**20, 2**24


@full_precision
def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Match the distances inside the batch, each divided by their mean.

    Section 3.2.1 of Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv:1904.05068.

    Args:
        student: Embeddings, [N, D]; in any unit, since the mean distance divides it out.
        teacher: Embeddings, [N, E]; E may differ from D. No gradient flows into it.

    Raises:
        UserError: If the numbers of samples differ.
    """
    return _huber(_distances(student), _distances(teacher.detach())).to(student.dtype)


@full_precision
def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Match the cosine of the angle at each sample between each two others.

    Section 3.2.2 of Park et al., as `rkd_distance`, where the arguments are described. Takes of
    the order of N³ + N² D operations; of the N³ cosines of a large batch only a part is in memory
    at a time, computed once more in the backward.

    Differs from the authors' code: the cosines come from distances and not from the N² difference
    vectors, which would take N² D numbers and N³ D operations.
    """
    tables = [
        table.to(rows.dtype) for rows in (student, teacher.detach()) for table in _separations(rows)
    ]
    require_same_shape(tables[0], tables[2])
    number = len(student)
    at_once = _CACHED if student.device.type == "cpu" else _LAUNCHED
    step = max(at_once // max(number**2, 1), 1)
    if step >= number:
        return _angle_errors(slice(None), *tables) / max(number**3, 1)
    part = partial(checkpoint, _angle_errors, use_reentrant=False, preserve_rng_state=False)
    parts = [part(slice(first, first + step), *tables) for first in range(0, number, step)]
    return torch.stack(parts).sum() / number**3


@full_precision
def rkd(
    student: Tensor,
    teacher: Tensor,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
) -> Tensor:
    """Sum `rkd_distance` and `rkd_angle`, weighted as in RepDistiller and mdistiller.

    Args:
        student: Embeddings, [N, D].
        teacher: Embeddings, [N, E]; E may differ from D. No gradient flows into it.
        distance_weight: Factor of the distances.
        angle_weight: Factor of the angles.

    Raises:
        UserError: If the numbers of samples differ.
    """
    distance, angle = rkd_distance(student, teacher), rkd_angle(student, teacher)
    return distance_weight * distance + angle_weight * angle


def _distances(rows: Tensor) -> Tensor:
    """Return the distances over their mean, float64 [N, N]; 0 if there is but one sample."""
    squared, inverse = _separations(rows)
    distances = squared * inverse
    pairs = len(rows) * (len(rows) - 1)
    return distances / (distances.sum() / max(pairs, 1)).clamp(min=1e-12)


def _angle_errors(at: slice, *tables: Tensor) -> Tensor:
    """Sum the errors of the cosines at some samples; `_separations` of student, then teacher."""
    student, teacher = _angles(at, *tables[:2]), _angles(at, *tables[2:])
    # The same as smooth_l1_loss, whose scalar would keep the memory of all the errors.
    return F.huber_loss(student, teacher, reduction="sum")


def _angles(at: slice, squared: Tensor, inverse: Tensor) -> Tensor:
    """Return at [i, j, k] the cosine of the angle at i between j and k, by the law of cosines."""
    twice = squared[at, :, None] + squared[at, None] - squared
    return twice * (inverse[at, :, None] * (inverse[at, None] / 2))


def _separations(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared and inverse distances, float64 [N, N]; both are 0 where samples are equal."""
    # Distances are small differences of large products: float32 would lose near neighbours. The
    # products are N² D operations of float64, little beside a network.
    rows = rows.double()
    products = rows @ rows.mT
    lengths = products.diagonal()
    scale = lengths[:, None] + lengths
    squared = scale - 2 * products
    equal = squared <= 1e-13 * scale  # rounding errors, of the embeddings and of this product
    inverse = squared.masked_fill(equal, 1).rsqrt().masked_fill(equal, 0)
    return squared.masked_fill(equal, 0), inverse


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    require_same_shape(student, teacher)
    return F.smooth_l1_loss(student, teacher, reduction="sum") / max(student.numel(), 1)


class RKD(Criterion):
    """See `rkd`.

    Args:
        distance_weight: Factor of the distances.
        angle_weight: Factor of the angles.
        gather: Compare the samples of all processes' batches, as one process would on the joint
            batch, and not those of each process among themselves.
    """

    takes = "vectors"

    def __init__(
        self,
        *,
        distance_weight: NonNegative = 25.0,
        angle_weight: NonNegative = 50.0,
        gather: bool = False,
    ) -> None:
        super().__init__()
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.gather = gather

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of embeddings [N, D]; `batch` is not used."""
        if self.gather:
            student, teacher = gather_with_gradient(student), gather_rows(teacher.detach())
        return rkd(
            student,
            teacher,
            distance_weight=self.distance_weight,
            angle_weight=self.angle_weight,
        )
