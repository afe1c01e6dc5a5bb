r"""PKT: the probability that one sample of the batch has another as its neighbour.

.. math::

   L = \frac1{N^2}\sum_{ij}p^t_{j|i}\log\frac{p^t_{j|i}}{p^s_{j|i}},
   \qquad p_{j|i}\propto\tfrac12\big(1+\cos(f_i,f_j)\big)

f are vectors of the samples of a batch.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion
from kd_core.functional import full_precision, require_same_shape


@full_precision
def pkt(student: Tensor, teacher: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Match the probabilities of being neighbours, by KL(teacher || student) per pair of samples.

    Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer",
    ECCV 2018, arXiv:1803.10837. As in their code it is the mean over all N² pairs, hence a weight
    of 30000.

    Differs from the authors' code: a NaN is not replaced by 0.

    Args:
        student: Vectors, [N, D].
        teacher: Vectors, [N, E]; E may differ from D. No gradient flows into it.
        eps: Added to lengths and to probabilities.

    Raises:
        UserError: If the numbers of samples differ.
    """
    student, teacher = _neighbours(student, eps), _neighbours(teacher.detach(), eps)
    require_same_shape(student, teacher)
    divergence = teacher * ((teacher + eps) / (student + eps)).log()
    return divergence.sum() / max(divergence.numel(), 1)


def _neighbours(vectors: Tensor, eps: float) -> Tensor:
    """Return the probability of every sample to have each as its neighbour, [N, N]."""
    unit = vectors / (vectors.norm(dim=1, keepdim=True) + eps)
    similarity = (unit @ unit.mT + 1) / 2
    return similarity / similarity.sum(1, keepdim=True)


class PKT(Criterion):
    """See `pkt`.

    Args:
        eps: Added to lengths and to probabilities.
    """

    takes = "vectors"

    def __init__(self, *, eps: Positive = 1e-7) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D]; `batch` is not used."""
        return pkt(student, teacher, eps=self.eps)
