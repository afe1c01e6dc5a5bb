r"""SL-Enc: the teacher's soft label, perturbed by a small trained network that takes noise.

.. math::

   L = -\tau^2\sum_c\sigma\big((z^t+e(z^t))/\tau\big)_c\,\log\sigma(z^s/\tau)_c

e is a small network, trained first, that takes noise too.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion
from kd_core.functional import full_precision, require_same_shape, soft_cross_entropy


@full_precision
def perturbed_soft_label(
    student: Tensor, teacher: Tensor, perturbation: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Take the cross-entropy with the class probabilities of the teacher's perturbed logits.

    As `soft_label`, with a perturbation added to the teacher's logits. The factor temperature² is
    inside.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        perturbation: What is added to the teacher's logits, [N, C]. It gets a gradient.
        temperature: Divides the logits.

    Raises:
        UserError: If the shapes differ.
    """
    require_same_shape(student, teacher)
    require_same_shape(student, perturbation)
    return soft_cross_entropy(student, teacher.detach() + perturbation, temperature)


class SoftLabelEncoder(Criterion):
    """Soft labels whose logits a generator perturbs by up to 1; for a student without ground truth.

    SL-Enc of "Label Optimization", ICCV 2021 submission 8285: softmax(g(noise)) is added to the
    teacher's logits, where g is a linear layer from 100 standard normal numbers to 50, ReLU,
    BatchNorm and a linear layer to the classes. It is trained by the same loss, beside the student.
    The authors' code defines g but never builds it, and calls a loss that does not exist; this is
    what the paper describes. Their temperature is 3, their weight 0.1.

    Every image gets new noise in every step. `batch["noise"]`, where it is given, is used instead:
    [M, 100]; its first N rows belong to the images. BatchNorm needs at least two rows, so M is 2
    where a batch has fewer images.

    Args:
        num_classes: Number of classes.
        temperature: Divides the logits.
    """

    takes = "logits"
    exempt: ClassVar = {
        "zero_at_identity": "a cross-entropy ends at the entropy of the label",
        "two_calls_agree": "the noise is drawn",
        "order_of_the_batch_does_not_matter": "the noise is drawn for each place in the batch",
        "cuda_agrees_with_cpu": "the noise is drawn, by another generator on each device",
    }

    def __init__(self, num_classes: int, *, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.generator = nn.Sequential(
            nn.Linear(100, 50), nn.ReLU(), nn.BatchNorm1d(50), nn.Linear(50, num_classes)
        )

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; of `batch`, `noise` is used if it is there."""
        noise = batch["noise"] if "noise" in batch else self._draw(student)
        perturbation = self.generator(noise)[: len(student)].softmax(1)
        return perturbed_soft_label(student, teacher, perturbation, temperature=self.temperature)

    def _draw(self, student: Tensor) -> Tensor:
        """Return a row of noise for each image, and at least two rows."""
        rows = max(len(student), 2)
        return torch.randn(rows, 100, device=student.device).to(student.dtype)
