r"""Hard-label distillation: the teacher's predicted class serves as the label.

.. math::

   L = \mathrm{CE}\big(z^s,\ \operatorname{argmax}_c z^t_c\big)

Mean over the batch.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kd_core.criteria.criterion import Criterion
from kd_core.functional import full_precision, require_same_shape


@full_precision
def hard_label(student: Tensor, teacher: Tensor) -> Tensor:
    """Take the cross-entropy with the class of the teacher's largest logit.

    Equation 3 of Touvron et al., "Training data-efficient image transformers & distillation through
    attention", ICML 2021, arXiv:2012.12877 (DeiT). Its half is an outer weight; the other half is
    the task's. Of equal logits the first counts, on a CPU.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.

    Raises:
        UserError: If the shapes differ.
    """
    require_same_shape(student, teacher)
    total = F.cross_entropy(student, teacher.detach().argmax(1), reduction="sum")
    return total / max(len(student), 1)


class HardLabel(Criterion):
    """See `hard_label`; a weight and a `task_weight` of one half each make DeiT's loss."""

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "a cross-entropy with one class has no zero"}

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return hard_label(student, teacher)
