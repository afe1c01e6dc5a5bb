r"""KD: the teacher's softened class probabilities.

.. math::

   L = \tau^2\,\mathrm{KL}\big(\sigma(z^t/\tau)\,\|\,\sigma(z^s/\tau)\big)

z are logits, sigma is the softmax, tau the temperature; mean over the batch.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import full_precision, kl_divergence, require_three_classes, z_score


@full_precision
def kd(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float | Tensor = 4.0,
    standardize: bool = False,
) -> Tensor:
    """Match the class probabilities, softened by a temperature.

    Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531. The factor
    temperature² is inside. With `standardize` it is logit standardisation, Sun et al., CVPR 2024,
    arXiv:2403.01427, which the authors run at temperature 2 and weight 9.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        temperature: Divides the logits; gradients flow into a tensor.
        standardize: Give each row of both logits zero mean and unit deviation first.

    Raises:
        UserError: If the shapes differ, or fewer than three classes are to be standardised.
    """
    teacher = teacher.detach()
    if standardize:
        student, teacher = z_score(student), z_score(teacher)
    student, teacher = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return kl_divergence(student, teacher) * temperature**2


class Standardizable:
    """Mixin of criteria that may standardise logits: checks that there are enough classes."""

    standardize: bool

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject fewer than three classes where they are to be standardised."""
        super().check_shapes(student, teacher)  # type: ignore[misc]  # that of Criterion
        if self.standardize:
            require_three_classes(student[0][-1])


class KD(Standardizable, Criterion):
    """See `kd`.

    Args:
        temperature: Divides the logits.
        standardize: Give each row of both logits zero mean and unit deviation first.
    """

    takes = "logits"

    def __init__(self, *, temperature: Positive = 4.0, standardize: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.standardize = standardize

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return kd(student, teacher, temperature=self.temperature, standardize=self.standardize)
