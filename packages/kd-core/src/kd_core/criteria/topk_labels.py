r"""Top-k labels: the teacher's k largest probabilities, and what becomes of the others.

.. math::

   L = -\sum_c\tilde p_c\,\log\sigma(z^s/\tau)_c

p̃ has the teacher's k largest probabilities; the others share what is missing from 1.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from kd_core.config.values import Positive, PositiveInt
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision, require_same_shape

Fill = Literal["spread", "renormalize"]


@full_precision
def largest(logits: Tensor, *, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the classes of the k largest probabilities, and these, from large to small.

    Of equal logits the lower class comes first, on every device.

    Args:
        logits: [N, C].
        k: C at most.
        temperature: Divides the logits.

    Returns:
        Classes, int64 [N, k], and probabilities [N, k] at this temperature.
    """
    require_enough_classes(k, logits.shape[1])
    # Not `topk`, whose order of equal values is not defined.
    index = logits.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return index, (logits / temperature).softmax(1).gather(1, index)


@full_precision
def spread(index: Tensor, value: Tensor, *, num_classes: int, fill: Fill = "spread") -> Tensor:
    """Return whole labels from the k largest probabilities of each.

    "spread" gives each other class an equal part of what is missing from 1, as Shen and Xing, "A
    Fast Knowledge Distillation Framework for Visual Recognition", ECCV 2022, arXiv:2112.01528
    (FKD, "marginal smoothing"), and TinyViT, arXiv:2207.10666, do. "renormalize" gives them
    nothing, and divides the k by their sum.

    Values that were kept in float16 may add up to a little more than 1: then nothing is missing.

    Args:
        index: Classes, [N, k]; those of a row differ.
        value: Their probabilities, [N, k].
        num_classes: C.
        fill: What the other classes get.

    Returns:
        Labels, [N, C].

    Raises:
        UserError: If the shapes differ, there are more values than classes, or `fill` is another.
    """
    _require_pairs(index, value)
    if fill not in get_args(Fill):
        raise UserError(f"fill: wanted 'spread' or 'renormalize', got {fill!r}")
    number, k = value.shape
    require_enough_classes(k, num_classes)
    total = value.sum(1, keepdim=True)
    if fill == "spread":
        labels = ((1 - total).clamp(min=0) / max(num_classes - k, 1)).expand(number, num_classes)
    else:
        labels = value.new_zeros(number, num_classes)
        # All values may be 0 after rounding: then the label is 0 too, not NaN.
        value = value / total.where(total != 0, 1)
    return labels.scatter(1, index.long(), value)


@full_precision
def topk_labels(
    student: Tensor,
    teacher: Tensor,
    *,
    k: int = 10,
    temperature: float = 1.0,
    fill: Fill = "spread",
) -> Tensor:
    """Take the cross-entropy with the teacher's top-k label, see `spread`; no factor temperature².

    It is what training from stored labels gives. FKD's code divides the student's logits alone by
    a temperature; here it divides both.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        k: How many probabilities are kept; C at most.
        temperature: Divides the logits.
        fill: What the other classes get.

    Raises:
        UserError: If the shapes differ, or there are fewer classes than k.
    """
    require_same_shape(student, teacher)
    index, value = largest(teacher.detach(), k=k, temperature=temperature)
    label = spread(index, value, num_classes=student.shape[1], fill=fill)
    return -batch_mean(label * (student / temperature).log_softmax(1))


def require_enough_classes(k: int, num_classes: int) -> None:
    """Reject more kept classes than there are.

    Raises:
        UserError: Says both numbers.
    """
    if k > num_classes:
        raise UserError(
            f"top-k labels: k is {k}, but there are {num_classes} classes; set k to at most "
            f"{num_classes}, which keeps all of them"
        )


def _require_pairs(index: Tensor, value: Tensor) -> None:
    if index.shape != value.shape or index.dim() != 2:
        raise UserError(
            f"top-k labels: wanted classes and probabilities of one shape [N, k], got "
            f"{list(index.shape)} and {list(value.shape)}"
        )


class TopKLabels(Criterion):
    """See `topk_labels`; without a label of the data, set the distiller's task_weight to 0.

    Args:
        k: How many of the teacher's probabilities are kept.
        temperature: Divides the logits.
        fill: What the other classes get: "spread", equal parts of the rest, or "renormalize",
            nothing, and the kept ones sum to 1.
    """

    takes = "logits"
    example: ClassVar = (((12,),), ((12,),))
    exempt: ClassVar = {"zero_at_identity": "a cross-entropy with a shortened label has no zero"}

    def __init__(
        self, *, k: PositiveInt = 10, temperature: Positive = 1.0, fill: Fill = "spread"
    ) -> None:
        super().__init__()
        self.k = k
        self.temperature = temperature
        self.fill: Fill = fill

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject fewer classes than are to be kept."""
        super().check_shapes(student, teacher)
        require_enough_classes(self.k, student[0][-1])

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return topk_labels(student, teacher, k=self.k, temperature=self.temperature, fill=self.fill)
