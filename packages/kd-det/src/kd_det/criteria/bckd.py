"""BCKD: class probabilities one by one, and boxes by their overlap, of two dense heads."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from kd_core.config.values import NonNegative
from kd_core.criteria.criterion import Borrowed, Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import full_precision, require_same_shape
from torch import Tensor, nn

from kd_det.criteria.crosskd import crosskd_box, crosskd_class
from kd_det.criteria.dense import (
    by_anchor,
    decoded,
    mean_count,
    positive_anchors,
    require_branches,
    require_dense,
    require_equal_anchors,
    require_equal_predictions,
    require_labels,
)

_EPSILON = 1.1920929e-7  # float32's, which the authors add to the divisor
_ROLES = "@dense_logits and @dense_boxes"


@full_precision
def classification(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    *,
    divisor: float | Tensor,
    beta: float = 1.0,
) -> Tensor:
    """Match class probabilities by binary cross-entropy, focused on where they differ most.

    Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
    Detection", ICCV 2023, arXiv:2308.14286. The focus is part of the gradient.

    Args:
        student: Logits [A, C], an independent probability (sigmoid) per class.
        teacher: Logits of the same shape. No gradient flows into them.
        weight: Of each anchor, [A].
        divisor: Divides the sum: the number of positive anchors.
        beta: Power of the difference of the probabilities, which weighs each class.
    """
    require_same_shape(student, teacher)
    return crosskd_class(student, teacher, weight=weight, normalizer=divisor + _EPSILON, beta=beta)


@full_precision
def location_weight(student: Tensor, teacher: Tensor, label_weight: Tensor) -> Tensor:
    """Return how much each anchor's box counts, [A]: its largest difference of a probability.

    Args:
        student: Logits [A, C].
        teacher: Logits of the same shape.
        label_weight: Of each anchor, [A].

    Returns:
        Weights without gradient.
    """
    require_same_shape(student, teacher)
    difference = (teacher.detach().sigmoid() - student.detach().sigmoid()).abs()
    return difference.amax(-1) * label_weight


@full_precision
def localization(
    student: Tensor,
    teacher: Tensor,
    points: Tensor,
    weight: Tensor,
    *,
    divisor: float | Tensor,
    bins: int = 17,
) -> Tensor:
    """Match boxes by 1 minus their generalised overlap, of heads that predict distributions.

    Args:
        student: Logits [A, 4 * bins] of the distances 0 to bins - 1 from a point to the left, top,
            right and bottom of its box; the distance is their expectation.
        teacher: Logits of the same shape. No gradient flows into them.
        points: Centres of the cells, [A, 2], x and y in units of the level's stride.
        weight: Of each anchor, [A]: see `location_weight`.
        divisor: Divides the sum: the number of positive anchors.
        bins: Of each distribution.
    """
    require_same_shape(student, teacher)
    boxes, shown = (_around(points, logits, bins) for logits in (student, teacher))
    return crosskd_box(boxes, shown, weight=weight, normalizer=divisor + _EPSILON)


def _around(points: Tensor, logits: Tensor, bins: int) -> Tensor:
    """Return boxes [A, 4] around points, from distributions [A, 4 * bins]."""
    shares = logits.unflatten(-1, (4, bins)).softmax(-1)
    distances = shares @ torch.arange(bins, device=logits.device, dtype=logits.dtype)
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


class BCKD(Criterion):
    """See `classification` and `localization`; between two RetinaNets, or two FCOS, of Detectron2.

    Boxes are decoded as the detector itself does it; of heads that predict distributions (GFL),
    as `localization` does (`bins`). The taps of either network are `@dense_logits` and
    `@dense_boxes`: all levels of the class logits and of the box predictions. All anchors take
    part, those that are ignored excepted, but only of levels that have a positive anchor anywhere
    in the batch.

    From `batch` it needs the student's own targets: `anchors`, one tensor [R_l, 4] in pixels per
    level, and `gt_labels` [N, R], where R is the sum of R_l: the class of each anchor, the number
    of classes for background, -1 if ignored.

    Differs from the authors' code: they count at least one positive anchor in every image, here it
    is at least one in the mean over all processes.

    Args:
        class_weight: Weight of the classes.
        box_weight: Weight of the boxes.
        beta: Power of the difference of the probabilities, which weighs each class.
        bins: Of each distribution, if the heads predict distributions; GFL has 17.
    """

    takes = "maps"
    reads_classes = True

    def __init__(
        self,
        *,
        class_weight: NonNegative = 1.0,
        box_weight: NonNegative = 4.0,
        beta: NonNegative = 1.0,
        bins: int | None = None,
    ) -> None:
        super().__init__()
        if bins is not None and bins < 2:
            raise UserError(f"BCKD: bins is {bins}; a distribution has at least 2 (GFL has 17)")
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.beta = beta
        self.bins = bins
        self._networks: tuple[Borrowed[Any], Borrowed[Any]] | None = None

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but the two final branches of heads of equal classes, anchors and levels.

        Raises:
            UserError: If the taps are others, or their shapes differ.
        """
        require_branches("BCKD", student, teacher, _ROLES)
        classes = self._networks and self._networks[0].module.num_classes
        require_equal_predictions("BCKD", student, teacher, 4 * (self.bins or 1), classes)

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Keep the two detectors, which decode their boxes.

        Raises:
            UserError: If one is not a dense detector, or their classes or anchors differ.
        """
        for network, paths in zip((student, teacher), taps, strict=True):
            require_dense("BCKD", network, paths, _ROLES)
        require_equal_anchors("BCKD", student, teacher)
        self._networks = Borrowed(student), Borrowed(teacher)

    def forward(
        self,
        student: Sequence[Sequence[Tensor]],
        teacher: Sequence[Sequence[Tensor]],
        batch: Mapping[str, Any],
    ) -> Tensor:
        """Return the loss of logits and boxes, each a tuple of levels [N, A * values, H, W].

        Args:
            student: Values of the two taps.
            teacher: The same of the teacher.
            batch: See the class.
        """
        if self._networks is None:
            raise UserError("BCKD has no detectors yet: call bind(student, teacher, taps) first")
        own, shown = (network.module for network in self._networks)
        classes, labels = own.num_classes, batch["gt_labels"]
        logits, shown_logits = (by_anchor(side[0], classes) for side in (student, teacher))
        require_labels("BCKD", labels, logits.shape[1])
        positive = positive_anchors(labels, classes)
        taught = (labels >= 0) & _on_levels_with(positive, batch["anchors"])
        weight, divisor = taught.to(logits.dtype), mean_count(positive)
        loss = classification(logits, shown_logits, weight, divisor=divisor, beta=self.beta)
        boxes = self._boxes(own, student[1], batch["anchors"])
        with torch.no_grad():
            shown_boxes = self._boxes(shown, teacher[1], batch["anchors"])
        focus = location_weight(logits, shown_logits, weight)
        regions = crosskd_box(boxes, shown_boxes, weight=focus, normalizer=divisor + _EPSILON)
        return self.class_weight * loss + self.box_weight * regions

    def _boxes(
        self, network: nn.Module, levels: Sequence[Tensor], anchors: Sequence[Tensor]
    ) -> Tensor:
        """Return boxes [N, R, 4] of the predictions of all levels."""
        if self.bins is None:
            return decoded(network, by_anchor(levels, 4), anchors)
        logits = by_anchor(levels, 4 * self.bins)
        # Both boxes are around one point: where it is, and its unit, do not change the overlap.
        return _around(logits.new_zeros(2).expand(*logits.shape[:2], 2), logits, self.bins)


def _on_levels_with(positive: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """Return, for all anchors [N, R], whether any of the same level in the batch is positive."""
    levels = positive.split([len(level) for level in anchors], 1)
    return torch.cat([level.any().expand_as(level) for level in levels], 1)
