r"""NST: the distribution of a map's channels, each a pattern of where it fires.

.. math::

   L = \sum_l\big\|\tfrac1{C^s}G(F^s)-\tfrac1{C^t}G(F^t)\big\|^2

Each channel is a vector of unit length, G holds the products of positions summed over channels:
the squared discrepancy with the kernel (xᵀy)².
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from torch import Tensor

from kd_core.criteria.criterion import Criterion
from kd_core.functional import Maps, batch_mean, full_precision, levels, pool_to_match


@full_precision
def nst(student: Maps, teacher: Maps) -> Tensor:
    """Match the distributions of channels by their maximum mean discrepancy; sum of levels.

    Huang and Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
    arXiv:1707.01219, with the polynomial kernel of degree 2. Channels are scaled to unit length,
    the larger map is average-pooled to the smaller first. The teacher's own part has no gradient,
    but counts, so that the loss ends at 0. RepDistiller and mdistiller weight it by 50.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep.
        teacher: As many maps, of any shape. No gradient flows into them.

    Raises:
        UserError: If the numbers of levels differ.
    """
    pairs = [pool_to_match(s, t.detach()) for s, t in levels(student, teacher)]
    return torch.stack(
        [batch_mean(_discrepancy(_channels(s), _channels(t))) for s, t in pairs]
    ).sum()


def _channels(maps: Tensor) -> Tensor:
    """Return each channel's positions [N, C, H * W], of unit length."""
    return F.normalize(maps.flatten(2), dim=2)


def _discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare channels [N, C, L] and [N, D, L]: [N], 0 or more."""
    if student.shape[2] > max(student.shape[1], teacher.shape[1]):
        own = _kernel(student, student) + _kernel(teacher, teacher)
        return own - 2 * _kernel(student, teacher)
    # With A and B the channels as rows, the sum of (a·b)² is |A B'|² = <A'A, B'B>. With more
    # channels than positions, L x L products are enough for all three kernels.
    difference = student.mT @ student / student.shape[1] - teacher.mT @ teacher / teacher.shape[1]
    return difference.square().sum((1, 2))


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean of (a·b)² over all channels a of one and b of the other, [N]."""
    return (one @ other.mT).square().mean((1, 2))


class NST(Criterion):
    """See `nst`."""

    takes = "maps"

    def forward(self, student: Maps, teacher: Maps, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        return nst(student, teacher)
