r"""SP: which samples of the batch are similar to which.

.. math::

   L = \sum_l\tfrac1{N^2}\big\|\bar G^s_l-\bar G^t_l\big\|_F^2,\qquad G = F F^\top

F has a row for each sample; the rows of Ḡ have unit length.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from torch import Tensor

from kd_core.criteria.criterion import Criterion
from kd_core.functional import Maps, full_precision, levels, mse


@full_precision
def sp(student: Maps, teacher: Maps) -> Tensor:
    """Match the inner products of the batch's maps, each row scaled to unit length; sum of levels.

    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv:1907.09682. The
    authors' weight is 3000, on the last map alone.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep; vectors [N, D] are possible too.
        teacher: As many maps, of any shape. No gradient flows into them.

    Raises:
        UserError: If the numbers of levels or of samples differ.
    """
    pairs = levels(student, teacher)
    return torch.stack([mse(_similarity(s), _similarity(t.detach())) for s, t in pairs]).sum()


def _similarity(maps: Tensor) -> Tensor:
    """Return the similarities of every sample to all, [N, N]."""
    rows = maps.flatten(1)
    return F.normalize(rows @ rows.mT, dim=1)


class SP(Criterion):
    """See `sp`."""

    takes = "maps"
    vectors_too = True  # it compares rows of numbers

    def forward(self, student: Maps, teacher: Maps, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of maps [N, C, H, W] or vectors [N, D]; `batch` is not used."""
        return sp(student, teacher)
