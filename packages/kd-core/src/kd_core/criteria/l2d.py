r"""L2D: distillation of multi-label classifiers, by their labels one by one.

.. math::

   L = \lambda\sum_c\mathrm{KL}\big(\mathrm{B}(p^t_c)\,\|\,\mathrm{B}(p^s_c)\big)
   +\lambda_c L_{class}+\lambda_i L_{image}

B is Bernoulli's distribution, p are sigmoids; the other parts match distances of label
embeddings: of one class over images, of one image over classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from kd_core.config.values import NonNegative
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision, require_same_shape

_NEAREST = 1e-12  # the smallest square of a distance, as the original has it
_ROUNDING = 1e-13  # error of a square, as a part of the lengths


@full_precision
def mld(student: Tensor, teacher: Tensor) -> Tensor:
    """Match the probability of every label by itself (multi-label logits distillation).

    Yang et al., "Multi-Label Knowledge Distillation", ICCV 2023, arXiv:2308.06453: the binary
    Kullback-Leibler divergence of the sigmoids, summed over the classes, mean over the batch.

    Differs from the authors' code: it clamps probabilities, to a value that is 1 in float32, so
    that confident logits give infinity there; here logarithms of the sigmoid are finite.

    Args:
        student: Logits of sigmoids, [N, C].
        teacher: Logits of sigmoids, [N, C]. No gradient flows into it.

    Raises:
        UserError: If the shapes differ.
    """
    require_same_shape(student, teacher)
    teacher = teacher.detach()
    yes, no = teacher.sigmoid(), (-teacher).sigmoid()
    present = yes * (F.logsigmoid(teacher) - F.logsigmoid(student))
    absent = no * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return batch_mean(present + absent)


@full_precision
def class_aware(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Match, for every class, how far apart the embeddings of the images that have it are.

    Same source as `mld`. Classes with fewer than two images are left out; with two, the loss is 0,
    since distances are relative to their mean.

    Args:
        student: Label-wise embeddings, one vector a class, [N, C, D].
        teacher: Label-wise embeddings, [N, C, E]. No gradient flows into it.
        label: 1 where an image has the class, [N, C].

    Returns:
        The sum over the classes, not a mean: it grows with the batch.
    """
    return _structure(student.transpose(0, 1), teacher.transpose(0, 1), label.T)


@full_precision
def instance_aware(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Match, for every image, how far apart the embeddings of its own classes are.

    As `class_aware`, with images in the place of classes: the sum over the images, not a mean.
    """
    return _structure(student, teacher, label)


def _structure(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Compare the distances among rows [groups, rows, D] that have the label [groups, rows]."""
    if student.shape[:2] != teacher.shape[:2] or student.shape[:2] != label.shape:
        raise UserError(
            f"label-wise embeddings of student {list(student.shape)} and teacher "
            f"{list(teacher.shape)} need the same images and classes, and labels [N, C]"
        )
    present = label > 0.5  # unknown ones (-1, NaN) are not
    ours, known = _relative_distances(student, present)
    theirs, also_known = _relative_distances(teacher.detach(), present)
    gaps = F.smooth_l1_loss(ours, theirs, reduction="none").sum((1, 2))
    gaps = gaps / present.sum(1).clamp(min=1)
    # The masks leave out a NaN as they do absent rows; it must be seen.
    return torch.where(known & also_known, gaps, 0).sum() + (student * 0).sum()


def _relative_distances(rows: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances over their mean, [groups, rows, rows], and which groups have a mean.

    Those of absent rows are 0. Groups of equal rows have no mean.
    """
    pairs = present.unsqueeze(2) & present.unsqueeze(1)
    pairs = pairs & ~torch.eye(present.shape[1], dtype=torch.bool, device=rows.device)
    # Distances are small differences of large products: float32 would lose near neighbours.
    products = rows.double() @ rows.double().mT
    lengths = products.diagonal(dim1=1, dim2=2)
    scale = lengths.unsqueeze(2) + lengths.unsqueeze(1)
    squares = scale - 2 * products
    far = pairs & (squares > _ROUNDING * scale) & (squares > _NEAREST)
    distances = torch.where(far, squares, 1).sqrt()
    # The original clamps squares, so that equal rows are this far apart, and have no gradient.
    distances = torch.where(far, distances, _NEAREST**0.5) * pairs
    known = far.any(2).any(1)
    mean = distances.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    mean = torch.where(known, mean, 1)
    return (distances / mean[:, None, None]).to(rows.dtype), known


class MLD(Criterion):
    """See `mld`: the part of L2D that any two multi-label classifiers can use."""

    takes = "logits"
    multi_label = True

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return mld(student, teacher)


class L2D(Criterion):
    """MLD and label-wise embedding distillation (LED); needs `batch["label"]` [N, C].

    See `mld`, `class_aware` and `instance_aware`. Contrary to other criteria it is not a mean over
    the batch: its embedding parts are sums, as in the authors' code, whose weights were tuned with
    64 images a batch. With another batch size, change `class_weight` and `instance_weight`.

    Args:
        class_weight: Factor of the class-aware part.
        instance_weight: Factor of the instance-aware part.
        logit_weight: Factor of the part on logits.
    """

    takes = ("logits", "tokens")
    multi_label = True
    example = ((7,), (7, 6)), ((7,), (7, 8))

    def __init__(
        self,
        *,
        class_weight: NonNegative = 100.0,
        instance_weight: NonNegative = 1000.0,
        logit_weight: NonNegative = 10.0,
    ) -> None:
        super().__init__()
        self.class_weight = class_weight
        self.instance_weight = instance_weight
        self.logit_weight = logit_weight

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject embeddings that are not one vector a class."""
        super().check_shapes(student, teacher)
        for side, (logits, embeddings) in (("student", student), ("teacher", teacher)):
            if logits[-1] != embeddings[0]:
                raise UserError(
                    f"L2D: the {side} has {logits[-1]} logits but {embeddings[0]} embeddings; tap "
                    "one embedding a class, [N, C, D], such as @label_embeddings of "
                    "kd_cls.models.label_wise.LabelWise"
                )

    def forward(
        self,
        student: tuple[Tensor, Tensor],
        teacher: tuple[Tensor, Tensor],
        batch: Mapping[str, Any],
    ) -> Tensor:
        """Return the loss of logits [N, C] and embeddings [N, C, D] of each network."""
        label = batch["label"]
        if label.shape != student[0].shape:
            raise UserError(
                f"L2D needs labels [N, C] of 0 and 1, as the logits {list(student[0].shape)}, got "
                f"{list(label.shape)}; use it on multi-label data"
            )
        return (
            self.logit_weight * mld(student[0], teacher[0])
            + self.class_weight * class_aware(student[1], teacher[1], label)
            + self.instance_weight * instance_aware(student[1], teacher[1], label)
        )
