r"""Label optimization: the teacher's soft label, or a smoothed one, replaces the ground truth.

.. math::

   L = -\tau^2\sum_c\sigma(z^t/\tau)_c\,\log\sigma(z^s/\tau)_c

There is no other label. Label smoothing has 1 - epsilon + epsilon/C for the target and epsilon/C
for the rest in the place of the teacher's.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kd_core.config.values import Positive, Share
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import full_precision, soft_cross_entropy


@full_precision
def soft_label(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Take the cross-entropy with the teacher's class probabilities, without any ground truth.

    SL of "Label Enhancement for Better Model Generalization and Calibration", CVPR 2022 submission
    8511; its predecessor "Label Optimization", ICCV 2021 submission 8285, has temperature 3 and a
    weight of 0.1. The factor temperature² is inside.

    It is `kd` plus the teacher's entropy times temperature², so its gradient is that of `kd`. The
    KD that both papers compare with is nearly pure cross-entropy: their code divides the divergence
    by the number of classes too, so at weight 0.1 and temperature 3 its factor is 0.009 on
    CIFAR-100.

    With k teachers, the sum of the losses (SL-KD) is k times the loss with the mean of their
    probabilities. So an ensemble (SL-Ens) differs from it only by that factor, unless it averages
    something else, such as logits.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        temperature: Divides the logits.

    Raises:
        UserError: If the shapes differ.
    """
    return soft_cross_entropy(student, teacher.detach(), temperature)


@full_precision
def label_smoothing(student: Tensor, label: Tensor, *, epsilon: float = 0.1) -> Tensor:
    """Take the cross-entropy with labels that are partly spread over all C classes.

    Section 7 of Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
    CVPR 2016, arXiv:1512.00567: 1 - epsilon + epsilon / C of the target, epsilon / C of the others.

    Args:
        student: Logits, [N, C].
        label: True classes, int64 [N].
        epsilon: The share, in [0, 1].
    """
    total = F.cross_entropy(student, label, label_smoothing=epsilon, reduction="sum")
    return total / max(len(student), 1)


class SoftLabel(Criterion):
    """See `soft_label`; for a student without ground truth, set the distiller's task_weight to 0.

    Args:
        temperature: Divides the logits.
        ground_truth: Whether 1 is added to the teacher's logit of the true class: "SL + use_gt" of
            submission 8285. It needs `batch["label"]`.
    """

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "a cross-entropy ends at the teacher's entropy"}

    def __init__(self, *, temperature: Positive = 1.0, ground_truth: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.ground_truth = ground_truth

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; of `batch`, `label` is used if it is asked for."""
        if self.ground_truth:
            classes = torch.arange(teacher.shape[1], device=teacher.device)
            teacher = teacher + (batch["label"][:, None] == classes)
        return soft_label(student, teacher, temperature=self.temperature)


class LabelSmoothing(Criterion):
    """See `label_smoothing`; needs `batch["label"]`. The teacher is not used.

    To smooth the labels of the task's own loss, give the student `label_smoothing`: that needs no
    teacher. This criterion is for other cases: smoothing with its own weight or warm-up, of logits
    other than the task's (an auxiliary classifier's), or of a model that is its own task. A term
    always has a teacher, which runs in every step, so use it beside one that is needed anyway.

    Args:
        epsilon: Share of the label that is spread over all classes, in [0, 1].

    Raises:
        UserError: If epsilon is not in [0, 1].
    """

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "it compares with the labels, not with the teacher"}

    def __init__(self, *, epsilon: Share = 0.1) -> None:
        super().__init__()
        if not 0 <= epsilon <= 1:
            raise UserError(f"epsilon must be in [0, 1], got {epsilon}")
        self.epsilon = epsilon

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but logits of the student."""
        self._check_kinds("student", student)

    def forward(self, student: Tensor, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C] and `batch["label"]` [N]."""
        return label_smoothing(student, batch["label"], epsilon=self.epsilon)
