r"""DKD: KD in two parts, the target class against the rest and the rest among themselves.

.. math::

   L = \tau^2\big(\alpha\,\mathrm{KL}(b^t\|b^s) + \beta\,\mathrm{KL}(\hat p^t\|\hat p^s)\big)

b are the probabilities of the true class and of all others together, p̂ those among the others,
all at temperature tau.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.kd import Standardizable
from kd_core.functional import batch_mean, full_precision, kl_rows, z_score


@full_precision
def dkd(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    standardize: bool = False,
) -> Tensor:
    """Weight KD's target-class and non-target-class parts apart.

    Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, arXiv:2203.08679; the factor
    temperature² is inside. With `standardize`, Sun et al., CVPR 2024, arXiv:2403.01427, who run it
    at temperature 2 and nine times alpha and beta.

    Differs from the authors' code: the probability of the rest is a log-sum-exp of its logits, so
    a saturated student gives a finite loss where the logarithm of a sum gives infinity.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        label: True classes, int64 [N].
        alpha: Weight of the target class against the rest (TCKD).
        beta: Weight of the non-target classes among themselves (NCKD); with two classes that part
            is 0.
        temperature: Divides the logits.
        standardize: Give each row of both logits zero mean and unit deviation first.

    Raises:
        UserError: If the shapes differ, or fewer than three classes are to be standardised.
    """
    teacher = teacher.detach()
    if standardize:
        student, teacher = z_score(student), z_score(teacher)
    losses = dkd_rows(student, teacher, label, alpha=alpha, beta=beta, temperature=temperature)
    return batch_mean(losses)


def dkd_rows(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
) -> Tensor:
    """Return the loss of every sample, [N]; see `dkd`."""
    student_pair, student_rest = decouple(student / temperature, label)
    teacher_pair, teacher_rest = decouple(teacher / temperature, label)
    tckd = kl_rows(student_pair, teacher_pair)
    nckd = kl_rows(student_rest, teacher_rest)
    return (alpha * tckd + beta * nckd) * temperature**2


def decouple(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of target and rest [N, 2], and inside the rest [N, C]."""
    label = label.unsqueeze(1)
    # Masks the target with a finite number: -inf minus -inf in the divergence would be NaN.
    others = logits.scatter(1, label, torch.finfo(logits.dtype).min)
    rest = others.log_softmax(1)
    # Their log-sum-exp is what log-softmax has subtracted; computing it again would cost more.
    largest, where = others.max(1, keepdim=True)
    pair = torch.cat([logits.gather(1, label), largest - rest.gather(1, where)], 1)
    return pair.log_softmax(1), rest


class DKD(Standardizable, Criterion):
    """See `dkd`; needs `batch["label"]`.

    Args:
        alpha: Weight of the target class against the rest.
        beta: Weight of the non-target classes among themselves; the paper's is 2 to 8, larger for
            a more confident teacher.
        temperature: Divides the logits.
        standardize: Give each row of both logits zero mean and unit deviation first.
    """

    takes = "logits"

    def __init__(
        self,
        *,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
        temperature: Positive = 4.0,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.standardize = standardize

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C] and `batch["label"]` [N]."""
        return dkd(
            student,
            teacher,
            batch["label"],
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
            standardize=self.standardize,
        )
