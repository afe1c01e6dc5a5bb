r"""AT: where the teacher's feature maps are large.

.. math::

   L = \sum_l\mathrm{mean}\Big(\frac{A^s_l}{\|A^s_l\|}-\frac{A^t_l}{\|A^t_l\|}\Big)^2,
   \qquad A = \tfrac1C\sum_c|F_c|^p

A is a map of where the channels are large.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion
from kd_core.functional import Maps, full_precision, levels, mse, pool_to_match, spatial_attention


@full_precision
def at(student: Maps, teacher: Maps, *, p: float = 2) -> Tensor:
    """Match attention: the mean power of a map's channels, scaled to unit length; sum of levels.

    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv:1612.03928. The
    larger map is average-pooled to the smaller. As in the authors' code, a level is the mean over
    positions and samples of the squared difference; their weight for that is 1000.

    Differs from RepDistiller and mdistiller: an odd power is that of the absolute value, as in the
    paper; and nothing is cut off when the numbers of levels differ, which in theirs compares
    unlike stages.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep.
        teacher: As many maps, of any shape. No gradient flows into them.
        p: The power, 1 or more.

    Raises:
        UserError: If the numbers of levels or of samples differ.
    """
    pairs = [pool_to_match(s, t.detach()) for s, t in levels(student, teacher)]
    rows = [[spatial_attention(maps, power=p) for maps in pair] for pair in pairs]
    return torch.stack([mse(*pair) for pair in rows]).sum()


class AT(Criterion):
    """See `at`.

    The taps decide which levels are compared. The role `@stages` names the ends of a network's
    stages without its stem, so networks with and without a stem map fit.

    Args:
        p: The power, 1 or more.
    """

    takes = "maps"

    def __init__(self, *, p: Positive = 2) -> None:
        super().__init__()
        self.p = p

    def forward(self, student: Maps, teacher: Maps, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of maps [N, C, H, W]; `batch` is not used."""
        return at(student, teacher, p=self.p)
