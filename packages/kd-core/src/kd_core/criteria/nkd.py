r"""NKD: the teacher's probability of the target, and its distribution over the other classes.

.. math::

   L = -p^t_y\log p^s_y \;-\; \gamma\,\tau^2\sum_{c\ne y}\hat p^t_c\log\hat p^s_c

y is the true class, p̂ are probabilities among the other classes at temperature tau.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.criterion import Criterion
from kd_core.functional import batch_mean, full_precision, require_same_shape


@full_precision
def nkd(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    gamma: float = 1.5,
    temperature: float = 1.0,
) -> Tensor:
    """Take two cross-entropies: of the target, and among the other classes, which sum to 1 again.

    Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach
    with Normalized Loss and Customized Soft Labels", ICCV 2023, arXiv:2303.13005. The factor
    temperature² is inside. The defaults are the authors' for ImageNet; on CIFAR-100 they use gamma
    3.5 at temperature 3.

    The other classes are normalised without the target, as in the paper and the authors' code. The
    NKD inside SDD's code masks nothing there and takes the softmax over all classes.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        label: True classes, int64 [N].
        gamma: Weight of the other classes.
        temperature: Divides the logits of the other classes; the target's part has none.

    Raises:
        UserError: If the shapes differ.
    """
    losses = nkd_rows(student, teacher.detach(), label, gamma=gamma, temperature=temperature)
    return batch_mean(losses)


def nkd_rows(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    gamma: float,
    temperature: float,
    all_classes: bool = False,
) -> Tensor:
    """Return the loss of every sample, [N]; see `nkd`. With `all_classes`, as SDD's code has it."""
    require_same_shape(student, teacher)
    label = label.unsqueeze(1)
    target = teacher.softmax(1).gather(1, label) * student.log_softmax(1).gather(1, label)
    student, teacher = student / temperature, teacher / temperature
    if not all_classes:  # a finite number: 0 times inf would be NaN
        lowest = torch.finfo(student.dtype).min
        student, teacher = (x.scatter(1, label, lowest) for x in (student, teacher))
    others = (teacher.softmax(1) * student.log_softmax(1)).sum(1)
    return -gamma * temperature**2 * others - target.squeeze(1)


class NKD(Criterion):
    """See `nkd`; needs `batch["label"]`.

    Args:
        gamma: Weight of the other classes.
        temperature: Divides the logits of the other classes.
    """

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "cross-entropies end at the teacher's entropy"}

    def __init__(self, *, gamma: NonNegative = 1.5, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C] and `batch["label"]` [N]."""
        return nkd(student, teacher, batch["label"], gamma=self.gamma, temperature=self.temperature)
