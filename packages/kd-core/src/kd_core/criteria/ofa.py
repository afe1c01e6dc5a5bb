r"""OFA: a student of any architecture learns a teacher's logits, from its stages too.

.. math::

   L = -\sum_c\Big(\big(p^t_c+[c=y]\big)^{\varepsilon}-[c=y]\Big)\log p^s_c

For the student's logits, and for those of a head on each of its stages; p at temperature tau.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kd_core.config.values import NonNegativeInt, Positive, PositiveInt
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.exit_heads import map_head, token_head
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision, require_same_shape
from kd_core.networks.tap_paths import parse
from kd_core.networks.tokens import known_tokens


@full_precision
def ofa(
    student: Tensor,
    teacher: Tensor,
    label: Tensor | None,
    *,
    eps: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Take the cross-entropy with the teacher's probabilities, with more weight on the label.

    Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
    Distillation", NeurIPS 2023, arXiv:2310.19444. With p of the teacher and y of the label (one
    hot), the weights are (p + y) ** eps - y: p ** eps of all classes, (1 + p) ** eps - 1 of the
    label's. With eps 1 they are p, whatever the label; above 1 the label counts more. No factor
    temperature².

    Differs from the authors' code: logarithms of probabilities that round to 0 are finite.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        label: Classes [N], or probabilities of the classes [N, C], of which the largest counts.
            None where there are none, with eps 1 alone.
        eps: Exponent, > 0.
        temperature: Divides the logits.

    Raises:
        UserError: If the shapes differ, or there are no labels for another eps.
    """
    require_same_shape(student, teacher)
    if label is None and eps != 1:
        raise UserError(
            f"OFA: eps={eps:g} puts weight on the label, which the batch lacks; write eps=1.0, the "
            "cross-entropy with the teacher alone, or give labels"
        )
    weight = (teacher.detach() / temperature).softmax(1)
    if label is not None:
        label = label.argmax(1) if label.dim() == 2 else label
        target = _one_hot(label, weight.shape[1]).to(weight)
        weight = (weight + target).pow(eps) - target
    return -batch_mean(weight * (student / temperature).log_softmax(1))


class OFA(Criterion):
    """See `ofa`, on the logits of both networks.

    In mixed images the class of the largest share counts, as in the authors' code. With eps 1 no
    labels are needed; another eps without them is refused.

    Args:
        eps: Exponent of the teacher's probabilities and the label: 1 on CIFAR-100, 1.5 on ImageNet.
        temperature: Divides the logits.
    """

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "a cross-entropy ends at the teacher's entropy"}

    def __init__(self, *, eps: Positive = 1.0, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.eps, self.temperature = eps, temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; of `batch`, `label` is used, or `mixed_labels`."""
        label = None if self.eps == 1 else _labels(batch, teacher.shape[1])
        return ofa(student, teacher, label, eps=self.eps, temperature=self.temperature)


class OFAStage(Criterion):
    """See `ofa`, on the logits that a head makes of a stage of the student.

    The teacher's features are not used, so it may be of any architecture. The head is chosen by
    what the student's tap gives. Of a map: separable convolutions that halve it, one block for
    every later stage, and a linear layer on the mean; of stage 4 a 1x1 convolution instead of them.
    Of tokens: patches merged two by two until their grid is at most 7x7, transformer blocks, one
    for every later stage but at least one, and a linear layer on the class token, or on the mean
    where there is no prefix.

    Args:
        student_shapes: [C, H, W] or [L, D] of the student's tap.
        teacher_shapes: [classes] of the teacher's logits.
        num_classes: Filled in by the builder.
        stage: Which stage it is, of 4: the later, the smaller is the head.
        width: Channels before the linear layer, the larger of both networks' pooled widths in the
            authors' code. A map needs it. Of tokens it is that of the merged ones, None for the
            student's own; tokens that need no merging keep their own.
        prefix: Class, distillation and register tokens before those of the image, which a tap such
            as `blocks.2` has and `blocks.2:tokens` has not; the first of them is classified. They
            are not merged, so where patches are, width must be their own.
        eps: As of `OFA`.
        temperature: Divides the logits.

    Raises:
        UserError: If the shapes or a width do not suit.
    """

    takes = ("features",)
    teacher_takes = ("logits",)
    example: ClassVar = (((4, 8, 8),), ((7,),))
    example_arguments: ClassVar = {"stage": 2, "width": 8}
    exempt: ClassVar = {"zero_at_identity": "a cross-entropy ends at the teacher's entropy"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        num_classes: int,
        *,
        stage: Literal[1, 2, 3, 4],
        width: PositiveInt | None = None,
        prefix: NonNegativeInt = 0,
        eps: Positive = 1.0,
        temperature: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.check_shapes(student_shapes, teacher_shapes)
        self.eps, self.temperature = eps, temperature
        (shape,) = student_shapes
        self.takes_tokens, self.prefix = len(shape) == 2, prefix
        make_head = token_head if self.takes_tokens else map_head
        self.head = make_head(shape, num_classes, stage, width, prefix)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject a teacher whose logits are not of the classes."""
        super().check_shapes(student, teacher)
        if teacher[0][0] != self.num_classes:
            raise UserError(
                f"OFAStage makes logits of {self.num_classes} classes, but the teacher's tap has "
                f"{teacher[0][0]}; tap its logits (@logits), or use a teacher of these classes"
            )

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Reject a prefix that is not that of the tokens, where the student's network says it."""
        ((tap,), _) = taps
        parsed = parse(tap, student)
        facts = known_tokens(student, parsed.path)
        if not self.takes_tokens or facts is None:
            return
        found = 0 if parsed.layout else facts.prefix
        if found != self.prefix:
            raise UserError(
                f"OFAStage: prefix={self.prefix}, but tap {tap!r} has {found} tokens before those "
                f"of the image; write prefix={found}"
                + ("" if parsed.layout else f", or {tap}:tokens with prefix=0")
            )

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of a map or tokens, and logits [N, C]; of `batch` as `OFA`."""
        (features,), (logits,) = student, teacher
        label = None if self.eps == 1 else _labels(batch, self.num_classes)
        return ofa(self.head(features), logits, label, eps=self.eps, temperature=self.temperature)


def _labels(batch: Mapping[str, Any], num_classes: int) -> Tensor | None:
    """Return the classes of the images, of mixed ones the share of each class; None without."""
    if "mixed_labels" in batch:
        labels, weights = batch["mixed_labels"], batch["mixed_weights"]
        return (_one_hot(labels, num_classes) * weights.unsqueeze(2)).sum(1)
    return batch.get("label")


def _one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Return whether a class is the label's, [..., C]; torch's own reads from the device."""
    return label.unsqueeze(-1) == torch.arange(num_classes, device=label.device)
