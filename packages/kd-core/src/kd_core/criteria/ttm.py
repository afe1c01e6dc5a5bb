r"""TTM and WTTM: the teacher's probabilities raised to a power, the student's as they are.

.. math::

   L = w\,\mathrm{KL}\big(\sigma(\gamma z^t)\,\|\,\sigma(z^s)\big)

w is 1 in TTM; in WTTM it is the sum of the teacher's probabilities to the power gamma.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from kd_core.config.values import NonNegative
from kd_core.criteria.criterion import Criterion
from kd_core.functional import batch_mean, full_precision, kl_divergence, kl_rows


@full_precision
def ttm(student: Tensor, teacher: Tensor, *, gamma: float = 0.1) -> Tensor:
    """Match the teacher's probabilities to the power gamma, normalised again.

    Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024,
    arXiv:2402.11148. A temperature of 1 / gamma on the teacher alone; there is no squared
    temperature in front.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        gamma: Exponent of the teacher's probabilities.

    Raises:
        UserError: If the shapes differ.
    """
    return kl_divergence(student.log_softmax(1), (gamma * teacher.detach()).log_softmax(1))


@full_precision
def wttm(student: Tensor, teacher: Tensor, *, gamma: float = 0.1) -> Tensor:
    """As `ttm`, with each sample weighted by the sum of the powers before they are normalised.

    The weight of a sample grows with the teacher's doubt, from 1 to C to the power 1 - gamma.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        gamma: Exponent of the teacher's probabilities.

    Raises:
        UserError: If the shapes differ.
    """
    powers = gamma * teacher.detach().log_softmax(1)  # logarithms
    divergence = kl_rows(student.log_softmax(1), powers.log_softmax(1))
    return batch_mean(powers.logsumexp(1).exp() * divergence)


class TTM(Criterion):
    """See `ttm`.

    Args:
        gamma: Exponent of the teacher's probabilities.
    """

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "the teacher alone is softened"}

    def __init__(self, *, gamma: NonNegative = 0.1) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return ttm(student, teacher, gamma=self.gamma)


class WTTM(TTM):
    """See `wttm`.

    Args:
        gamma: Exponent of the teacher's probabilities.
    """

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return wttm(student, teacher, gamma=self.gamma)
