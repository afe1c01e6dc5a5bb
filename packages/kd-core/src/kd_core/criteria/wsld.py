r"""WSLD: KD with a weight for each sample, large where the student lags behind the teacher.

.. math::

   L = \alpha\,\tau^2\, w\,\Big({-}\sum_c \sigma(z^t/\tau)_c\log\sigma(z^s/\tau)_c\Big),
   \qquad w = 1-\exp\!\big({-}\mathrm{CE}(z^s,y)/\mathrm{CE}(z^t,y)\big)

w has no gradient.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.criterion import Criterion
from kd_core.functional import batch_mean, full_precision, require_same_shape


@full_precision
def wsld(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    alpha: float = 2.25,
    temperature: float = 4.0,
) -> Tensor:
    """Weight each sample's soft cross-entropy by how far the student is behind on its label.

    Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff
    Perspective", ICLR 2021, arXiv:2102.00650. The weight is 1 - exp(-student's / teacher's
    cross-entropy with the label), at temperature 1, and no gradient flows through it. Alpha and
    the factor temperature² are inside. The defaults are the authors' for CIFAR-100; on ImageNet
    they use alpha 2.5 at temperature 2.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        label: True classes, int64 [N].
        alpha: Factor of the whole.
        temperature: Divides the logits of the soft cross-entropy.

    Raises:
        UserError: If the shapes differ.
    """
    require_same_shape(student, teacher)
    teacher = teacher.detach()
    soft_label = (teacher / temperature).softmax(1)
    soft = -(soft_label * (student / temperature).log_softmax(1)).sum(1)
    weight = _weight(student.detach(), teacher, label)
    return alpha * temperature**2 * batch_mean(weight * soft)


def _weight(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Return the weights [N], in [0, 1]."""
    own, shown = (F.cross_entropy(logits, label, reduction="none") for logits in (student, teacher))
    return -torch.expm1(-own / (shown + 1e-7))


class WSLD(Criterion):
    """See `wsld`; needs `batch["label"]`.

    Args:
        alpha: Factor of the whole.
        temperature: Divides the logits of the soft cross-entropy.
    """

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "a cross-entropy ends at the teacher's entropy"}

    def __init__(self, *, alpha: NonNegative = 2.25, temperature: Positive = 4.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C] and `batch["label"]` [N]."""
        return wsld(
            student, teacher, batch["label"], alpha=self.alpha, temperature=self.temperature
        )
