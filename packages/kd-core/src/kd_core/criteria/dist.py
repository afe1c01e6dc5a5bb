r"""DIST: correlation with the teacher's probabilities, in each sample and in each class.

.. math::

   L = \tau^2\Big(\beta\big(1-\tfrac1N\sum_i\rho(p^s_{i\cdot},p^t_{i\cdot})\big)
   +\gamma\big(1-\tfrac1C\sum_c\rho(p^s_{\cdot c},p^t_{\cdot c})\big)\Big)

p are the probabilities [N, C] at temperature tau, rho is Pearson's correlation: of rows, then of
columns.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.criterion import Criterion
from kd_core.functional import full_precision, require_same_shape


@full_precision
def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Correlate the probabilities of each sample over classes, and of each class over the batch.

    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv:2205.10536.
    Each part is 1 less the mean Pearson correlation; the factor temperature² is inside. The second
    part counts every class, also those of which the batch has no sample, and is noisy in small
    batches; one sample alone counts as uncorrelated there.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        beta: Weight of the correlation inside samples.
        gamma: Weight of the correlation inside classes.
        temperature: Divides the logits; the authors' is 1 on ImageNet and 4 on CIFAR-100.

    Raises:
        UserError: If the shapes differ.
    """
    require_same_shape(student, teacher)
    if not len(student):  # else every class would count as uncorrelated
        return student.sum()
    student, teacher = ((logits / temperature).softmax(1) for logits in (student, teacher.detach()))
    samples, classes = _distance(student, teacher), _distance(student.T, teacher.T)
    return (beta * samples + gamma * classes) * temperature**2


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 less the mean correlation of corresponding rows, [R, K]."""
    student, teacher = (rows - rows.mean(1, keepdim=True) for rows in (student, teacher))
    norms = [torch.linalg.vector_norm(rows, dim=1) for rows in (student, teacher)]
    return 1 - ((student * teacher).sum(1) / (norms[0] * norms[1] + 1e-8)).mean()


class DIST(Criterion):
    """See `dist`.

    Args:
        beta: Weight of the correlation inside samples.
        gamma: Weight of the correlation inside classes.
        temperature: Divides the logits.
    """

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "the published 1e-8 beside the norms leaves about 1e-5"}

    def __init__(
        self, *, beta: NonNegative = 1.0, gamma: NonNegative = 1.0, temperature: Positive = 1.0
    ) -> None:
        super().__init__()
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return dist(
            student, teacher, beta=self.beta, gamma=self.gamma, temperature=self.temperature
        )
