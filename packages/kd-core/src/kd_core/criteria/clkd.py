r"""CLKD: normalised logits of samples and of classes, and the covariance of classes.

.. math::

   L = \mu\big(\mathrm{MSE}(\bar z^s,\bar z^t)
   +\beta\,\mathrm{MSE}(\tilde z^s,\tilde z^t)\big)
   +\tfrac{\nu}{C^2}\big\|\Sigma^s-\Sigma^t\big\|_F

z̄ are logits with rows of unit length, z̃ with columns of unit length, Sigma is the covariance of
classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kd_core.config.values import NonNegative
from kd_core.criteria.criterion import Criterion
from kd_core.functional import full_precision, mse


@full_precision
def clkd(
    student: Tensor, teacher: Tensor, *, mu: float = 0.5, beta: float = 2.0, nu: float = 0.4
) -> Tensor:
    """Match unit rows and unit columns of the logits, and the covariance of their classes.

    Zhang et al., "Class-aware Information for Logit-based Knowledge Distillation",
    arXiv:2211.14773: mu * (rows + beta * columns) + nu * covariance, without cross-entropy, as in
    the code of Streamlined Knowledge Distillation (CVPR 2026). The first two are mean squares, the
    third is a Frobenius norm over C². The covariance is over the batch, but divided by C - 1 as in
    that code, not by N - 1.

    The parts are small: a mean square of unit vectors is of the order 1 / (N * C), and so is its
    gradient beside that of the cross-entropy.

    Args:
        student: Logits, [N, C], C > 1.
        teacher: Logits, [N, C]. No gradient flows into it.
        mu: Weight of rows and columns.
        beta: Weight of columns relative to rows.
        nu: Weight of the covariance.

    Raises:
        UserError: If the shapes differ.
    """
    teacher = teacher.detach()
    samples, classes = (
        mse(F.normalize(student, dim=dim), F.normalize(teacher, dim=dim)) for dim in (1, 0)
    )
    number = student.shape[1]
    covariance = torch.linalg.matrix_norm(_scatter(student) - _scatter(teacher)) / (number - 1)
    return mu * (samples + beta * classes) + nu * covariance / number**2


def _scatter(logits: Tensor) -> Tensor:
    """Return the covariance of classes over the batch, [C, C], before it is divided."""
    centred = logits - logits.mean(0)
    return centred.T @ centred


class CLKD(Criterion):
    """See `clkd`.

    Args:
        mu: Weight of rows and columns.
        beta: Weight of columns relative to rows.
        nu: Weight of the covariance.
    """

    takes = "logits"

    def __init__(
        self, *, mu: NonNegative = 0.5, beta: NonNegative = 2.0, nu: NonNegative = 0.4
    ) -> None:
        super().__init__()
        self.mu = mu
        self.beta = beta
        self.nu = nu

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return clkd(student, teacher, mu=self.mu, beta=self.beta, nu=self.nu)
