r"""RLD: how sure the teacher is, and its order of the classes that it ranks below the true one.

.. math::

   L = \alpha\,\tau_1^2\,\mathrm{KL}(b^t\|b^s)+\beta\,\tau^2\,\mathrm{KL}(q^t\|q^s)

b are the student's probability of the true class and the teacher's of its own first class, each
with the rest; q are probabilities among the classes that the teacher ranks below the true one.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.dkd import decouple
from kd_core.criteria.kd import Standardizable
from kd_core.functional import batch_mean, full_precision, kl_rows, require_same_shape, z_score


@full_precision
def rld(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    target_temperature: float | None = None,
    standardize: bool = False,
) -> Tensor:
    """Teach the teacher's confidence and the classes that it ranks below the true one.

    Sun et al., "Knowledge Distillation with Refined Logits", arXiv:2408.07703. So a class that the
    teacher wrongly takes for the true one is not taught. Two parts, each with its temperature²:

    - Sample confidence: the student's probability of the true class is drawn to the teacher's
      largest one, of whatever class.
    - Masked correlation: `kd` among the classes whose logit of the teacher is below that of the
      true class; 0 where there are none.

    With `standardize` its authors have nine times alpha and beta, and temperature 2. Their code
    takes the logarithm of a sum of probabilities, which is infinite for a saturated student; here
    it is a log-sum-exp of logits.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        label: True classes, int64 [N].
        alpha: Weight of the sample confidence.
        beta: Weight of the masked correlation.
        temperature: Divides the logits.
        target_temperature: Divides them in the sample confidence; None takes `temperature`.
        standardize: Give each row of both logits zero mean and unit deviation first.

    Raises:
        UserError: If the shapes differ, or fewer than three classes are to be standardised.
    """
    require_same_shape(student, teacher)
    teacher = teacher.detach()
    if standardize:
        student, teacher = z_score(student), z_score(teacher)
    first = temperature if target_temperature is None else target_temperature
    own, _ = decouple(student / first, label)
    shown, _ = decouple(teacher / first, teacher.argmax(1))
    confidence = first**2 * kl_rows(own, shown)
    below = teacher < teacher.gather(1, label.unsqueeze(1))
    # A finite number: -inf minus -inf in the divergence would be NaN.
    lowest = torch.finfo(student.dtype).min
    kept = ((logits / temperature).where(below, lowest) for logits in (student, teacher))
    correlation = temperature**2 * kl_rows(*(logits.log_softmax(1) for logits in kept))
    return batch_mean(alpha * confidence + beta * correlation)


class RLD(Standardizable, Criterion):
    """See `rld`; needs `batch["label"]`.

    Args:
        alpha: Weight of the sample confidence.
        beta: Weight of the masked correlation.
        temperature: Divides the logits.
        target_temperature: Divides them in the sample confidence; None takes `temperature`.
        standardize: Give each row of both logits zero mean and unit deviation first.
    """

    takes = "logits"
    exempt: ClassVar = {
        "zero_at_identity": "where the teacher's largest logit is not of the true class, the "
        "student's probability of that class is drawn to another"
    }

    def __init__(
        self,
        *,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
        temperature: Positive = 4.0,
        target_temperature: Positive | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.temperature, self.target_temperature = temperature, target_temperature
        self.standardize = standardize

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C] and `batch["label"]` [N]."""
        return rld(
            student,
            teacher,
            batch["label"],
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
            target_temperature=self.target_temperature,
            standardize=self.standardize,
        )
