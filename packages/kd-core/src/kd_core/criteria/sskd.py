r"""SSKD: how the networks recognise rotated images, in addition to their classification.

.. math::

   L = \mathrm{KD}(z^s,z^t)+\mathrm{KD}(\tilde z^s,\tilde z^t)
   +\mathrm{KL}\big(\sigma(A^t/\tau)\,\|\,\sigma(A^s/\tau)\big)

z̃ are logits of rotated images, A the cosines between rotated images and upright ones, by a head
of the teacher's that is trained first; each part has its weight, and the last two keep the
teacher's right answers and the best of the others.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import NonNegative, Positive, Share
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.kd import kd
from kd_core.errors import UserError
from kd_core.functional import full_precision, kl_rows


@full_precision
def selective_kd(
    student: Tensor, teacher: Tensor, label: Tensor, *, share: float, temperature: float
) -> Tensor:
    """As `kd`, with samples that the teacher classifies rightly and the best of the others.

    Section 3.3 of Xu et al., "Knowledge Distillation Meets Self-Supervision", ECCV 2020,
    arXiv:2006.07114. Samples are ranked by how many classes the teacher puts before the true one.
    Of equal ranks the order is by the true class's probability, where the authors' is arbitrary.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        label: True classes, int64 [N].
        share: Of the samples about which the teacher is wrong, those kept; in [0, 1].
        temperature: Divides the logits.

    Raises:
        UserError: If the shapes differ.
    """
    teacher = teacher.detach()
    kept = _kept(teacher, label, share)
    student, teacher = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    # Rows that are not kept are multiplied by 0, not left out, so a NaN in them is not hidden.
    return (kept * kl_rows(student, teacher)).sum() / kept.sum().clamp(min=1) * temperature**2


def _kept(teacher: Tensor, label: Tensor, share: float) -> Tensor:
    """Return for each sample whether it is kept, [N]."""
    true = label[:, None]
    before = (teacher > teacher.gather(1, true)).sum(1)
    wrong = (before > 0).sum()
    number = len(teacher) - wrong + (wrong * share).long()
    order = (before - teacher.softmax(1).gather(1, true).squeeze(1)).argsort()
    return order.argsort() < number


class SSKDHead(Criterion):
    """Train a head on the teacher that finds the original of a rotated image.

    The phase before `SSKD`. Cross-entropy over the images of the batch; the logits are the cosine
    similarities of projected vectors. The student is not used.

    Args:
        teacher_shapes: [D] of the vector that the classifier gets.
    """

    takes = "vectors"
    views = 4
    exempt: ClassVar = {
        "gradient_reaches_the_student_only": "only the teacher's head is trained",
        "zero_at_identity": "the task is the teacher's own",
        "nan_is_not_hidden": "the student is not used",
    }

    def __init__(self, teacher_shapes: Shapes) -> None:
        super().__init__()
        self.teacher_head = _head(teacher_shapes[0][0])

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but a vector of the teacher."""
        self._check_kinds("teacher", teacher)

    def forward(self, student: Any, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [4 * N, D], view by view; of `batch`, the views are used."""
        _require_four_views(batch)
        similarity = _similarity(self.teacher_head(teacher.detach()))
        loss = F.cross_entropy(similarity, _origin(similarity), reduction="sum")
        return loss / max(len(similarity), 1)


class SSKD(Criterion):
    """Distil the logits of images and their rotations, and which of them the teacher finds alike.

    Xu et al., "Knowledge Distillation Meets Self-Supervision", ECCV 2020, arXiv:2006.07114: `kd` of
    the images, `selective_kd` of their rotations, and `selective_kd` of the cosine similarities of
    rotations and images, projected by a head of each network. The teacher's head is the product of
    a phase with `SSKDHead`; it is frozen. Only the images of one process are compared.

    Args:
        student_shapes: [C] of the logits and [D] of the vector that the classifier gets.
        teacher_shapes: The same of the teacher.
        kd_weight: Weight of the images' logits.
        rotated_weight: Weight of the rotations' logits.
        similarity_weight: Weight of the similarities.
        temperature: Divides the logits.
        similarity_temperature: Divides the similarities.
        rotated_share: Of the rotations that the teacher classifies wrongly, those kept.
        similarity_share: Of the rotations whose image the teacher does not find, those kept.
    """

    takes = ("logits", "vectors")
    views = 4
    trained_before = ("teacher_head",)
    exempt: ClassVar = {"zero_at_identity": "each network has its own head"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        kd_weight: NonNegative = 0.9,
        rotated_weight: NonNegative = 2.7,
        similarity_weight: NonNegative = 10.0,
        temperature: Positive = 4.0,
        similarity_temperature: Positive = 0.5,
        rotated_share: Share = 1.0,
        similarity_share: Share = 0.75,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.weights = kd_weight, rotated_weight, similarity_weight
        self.image_kd = partial(kd, temperature=temperature)
        self.rotated_kd = partial(selective_kd, share=rotated_share, temperature=temperature)
        self.similarity_kd = partial(
            selective_kd, share=similarity_share, temperature=similarity_temperature
        )
        self.student_head = _head(student_shapes[1][0])
        self.teacher_head = _head(teacher_shapes[1][0]).requires_grad_(False)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of logits [4 * N, C] and vectors [4 * N, D]; `batch` has the labels."""
        _require_four_views(batch)
        (logits, vectors), (shown, shown_vectors) = student, teacher
        number = len(logits) // 4
        label = batch["label"][:number].repeat(3)
        found = _similarity(self.student_head(vectors))
        wanted = _similarity(self.teacher_head(shown_vectors.detach()))
        images, rotated, similarity = self.weights
        return (
            images * self.image_kd(logits[:number], shown[:number])
            + rotated * self.rotated_kd(logits[number:], shown[number:], label)
            + similarity * self.similarity_kd(found, wanted, _origin(found))
        )


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def _similarity(projected: Tensor) -> Tensor:
    """Return the cosines [3 * N, N] of rotations and images, from rows [4 * N, D]."""
    rows = F.normalize(projected, dim=1, eps=1e-8)
    number = len(rows) // 4
    return rows[number:] @ rows[:number].mT


def _origin(similarity: Tensor) -> Tensor:
    """Return the column of each rotation's own image, [3 * N]."""
    return torch.arange(similarity.shape[1], device=similarity.device).repeat(3)


def _require_four_views(batch: Mapping[str, Any]) -> None:
    views = batch.get("num_views", 1)
    if views != 4:
        raise UserError(
            f"SSKD needs 4 views of every image, itself and its quarter turns, but the batch has "
            f"{views}; add dict(type='kd_cls.data.augment.QuarterTurns') to data.augment"
        )
