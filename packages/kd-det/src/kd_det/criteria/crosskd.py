"""CrossKD: the student's features through the teacher's dense head."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.config.values import NonNegative
from kd_core.criteria.criterion import Borrowed, Criterion, Shapes
from kd_core.criteria.pkd import channel_statistics, standardize
from kd_core.errors import UserError
from kd_core.functional import full_precision
from torch import Tensor, nn

from kd_det.criteria.dense import (
    by_anchor,
    decoded,
    positive_anchors,
    require_branches,
    require_equal_anchors,
)
from kd_det.criteria.overlaps import giou

_TAPS = re.compile(r"head\.cls_subnet\.(\d+)\[\*\] head\.bbox_subnet\.(\d+)\[\*\]")


@full_precision
def align(student: Tensor, teacher: Tensor) -> Tensor:
    """Give every channel of the student's maps the mean and deviation of the teacher's.

    Args:
        student: [N, C, H, W].
        teacher: [N, C, any height, any width]. No gradient flows into it.
    """
    deviation, mean = channel_statistics(teacher.detach())
    return standardize(student) * deviation + mean


@full_precision
def crosskd_class(
    student: Tensor,
    teacher: Tensor,
    *,
    weight: Tensor,
    normalizer: float | Tensor,
    beta: float = 1.0,
) -> Tensor:
    """Match class probabilities by binary cross-entropy, focused on where they differ most.

    Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024,
    arXiv:2306.11369: the quality focal loss with the teacher's probabilities as qualities. The
    focus is part of the gradient.

    Args:
        student: Cross-head logits, [..., C], an independent probability (sigmoid) per class.
        teacher: Logits of the same shape. No gradient flows into them.
        weight: Of each anchor, [...].
        normalizer: Divides the sum: the number of positive anchors.
        beta: Power of the difference of the probabilities, which weighs each class.
    """
    target = teacher.detach().sigmoid()
    focus = _power((student.sigmoid() - target).abs(), beta)
    errors = F.binary_cross_entropy_with_logits(student, target, reduction="none")
    return ((focus * errors).sum(-1) * weight).sum() / normalizer


@full_precision
def crosskd_box(
    student: Tensor, teacher: Tensor, *, weight: Tensor, normalizer: float | Tensor
) -> Tensor:
    """Match boxes by 1 minus their generalised intersection over union; see `crosskd_class`.

    Args:
        student: Boxes decoded from cross-head predictions, [..., 4]: left, top, right, bottom.
        teacher: Boxes of the same shape, in the same unit. No gradient flows into them.
        weight: Of each anchor, [...]: the teacher's confidence, its largest class probability.
        normalizer: Divides the sum: the number of positive anchors.
    """
    return ((1 - giou(student, teacher.detach())) * weight).sum() / normalizer


def _power(difference: Tensor, beta: float) -> Tensor:
    """Return a power whose gradient is finite, 0, where the two sides are equal."""
    if not 0 < beta < 1:
        return difference**beta
    equal = difference == 0
    return torch.where(equal, 0, torch.where(equal, 1, difference) ** beta)


class CrossKD(Criterion):
    """See `crosskd_class` and `crosskd_box`; between two RetinaNets, or two FCOS, of Detectron2.

    The outputs of both subnets of the student's head after their third convolution (and its norm)
    get the teacher's statistics (`align`), per level, and go through the rest of the teacher's
    head. Taps of either network are `["head.cls_subnet.4[*]", "head.bbox_subnet.4[*]"]`, with norm
    layers 7 instead of 4. The centreness of FCOS is not compared.

    From `batch` it needs the student's own targets: `anchors`, one tensor [R_l, 4] in pixels per
    level, and `gt_labels` [N, R], where R is the sum of R_l: the class of each anchor, the number
    of classes for background, -1 if ignored.

    Differs from the authors' code: the normalizer is the number of positive anchors in the batch
    of one GPU, at least 1; theirs counts at least one in every image.

    Args:
        class_weight: Weight of the classes.
        box_weight: Weight of the boxes.
        beta: Power of the difference of the probabilities, which weighs each class.
    """

    takes = "maps"
    reads_classes = True

    def __init__(
        self,
        *,
        class_weight: NonNegative = 1.0,
        box_weight: NonNegative = 1.0,
        beta: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.beta = beta
        self._teacher: Borrowed[nn.Module] | None = None
        self._cuts = [0, 0]  # start of the rest of the teacher's branches

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but two branches with all levels, of the teacher's channels.

        Raises:
            UserError: If the taps are others, or the channels differ.
        """
        require_branches("CrossKD", student, teacher, "@towers")
        sides: tuple[Any, Any] = student, teacher
        channels = [[[shape[0] for shape in branch] for branch in side] for side in sides]
        if channels[0] != channels[1]:
            raise UserError(
                f"CrossKD: the student's branches have {channels[0]} channels by level, the "
                f"teacher's {channels[1]}, which its head needs; take detectors whose "
                "heads have the same width and levels, or another method, such as PKD"
            )

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Find the rest of the teacher's head after the taps, and how it decodes boxes.

        Raises:
            UserError: If the taps are not of two RetinaNets' heads, or the classes differ.
        """
        for network, paths in zip((student, teacher), taps, strict=True):
            match = _TAPS.fullmatch(" ".join(paths))
            if match is None or not hasattr(network, "box2box_transform"):
                raise UserError(
                    "CrossKD finishes predictions in the head of a RetinaNet or an FCOS, but "
                    f"{list(paths)} are not taps in it, or {type(network).__name__} is another "
                    "detector; tap @towers of two RetinaNets or two FCOS"
                )
            self._cuts = [int(place) + 1 for place in match.groups()]
        require_equal_anchors("CrossKD", student, teacher)
        self._teacher = Borrowed(teacher)

    def forward(
        self,
        student: Sequence[Sequence[Tensor]],
        teacher: Sequence[Sequence[Tensor]],
        batch: Mapping[str, Any],
    ) -> Tensor:
        """Return the loss of the maps of both branches, each a tuple of levels [N, C, H, W].

        Args:
            student: Values of the taps of the class branch and of the box branch.
            teacher: The same of the teacher.
            batch: See the class.
        """
        if self._teacher is None:
            raise UserError("CrossKD has no head yet: call bind(student, teacher, taps) first")
        network: Any = self._teacher.module
        aligned = [
            [align(s, t) for s, t in zip(*branch, strict=True)]
            for branch in zip(student, teacher, strict=True)
        ]
        logits, boxes = _finish(network, self._cuts, aligned, batch["anchors"])
        with torch.no_grad():
            shown_logits, shown_boxes = _finish(network, self._cuts, teacher, batch["anchors"])
        labels = batch["gt_labels"]
        weight = (labels >= 0).to(logits.dtype)
        positives = positive_anchors(labels, network.num_classes).sum().clamp_min(1)
        confidence = shown_logits.sigmoid().amax(-1) * weight
        classes = crosskd_class(
            logits, shown_logits, weight=weight, normalizer=positives, beta=self.beta
        )
        regions = crosskd_box(boxes, shown_boxes, weight=confidence, normalizer=positives)
        return self.class_weight * classes + self.box_weight * regions


def _finish(
    network: Any,
    cuts: Sequence[int],
    branches: Sequence[Sequence[Tensor]],
    anchors: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Return class logits [N, R, classes] and boxes [N, R, 4] of the rest of a head."""
    head = network.head
    logits = _run(head.cls_subnet[cuts[0] :], head.cls_score, branches[0], network.num_classes)
    deltas = _run(head.bbox_subnet[cuts[1] :], head.bbox_pred, branches[1], 4)
    return logits, decoded(network, deltas, anchors)


def _run(layers: nn.Module, predict: nn.Module, levels: Sequence[Tensor], values: int) -> Tensor:
    """Return so many values for every anchor, [N, R, values].

    All levels in order: a head with BatchNorms has separate statistics for each level, and counts
    its calls to choose them.
    """
    return by_anchor([predict(layers(maps)) for maps in levels], values)
