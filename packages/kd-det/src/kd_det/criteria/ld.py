"""LD: the distributions of box edges that a dense head predicts, and the classes of its objects."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import full_precision, kl_rows
from torch import Tensor

from kd_det.criteria.dense import (
    by_anchor,
    mean_count,
    positive_anchors,
    require_branches,
    require_equal_predictions,
    require_labels,
)
from kd_det.criteria.overlaps import LEAST_AREA, area, centre_distance, intersection, iou

_NEAREST = 0.25  # of the threshold of overlap: where the region begins
_MAIN_DIVISOR, _REGION_DIVISOR = 4.0, 16.0


@full_precision
def ld(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    *,
    divisor: float | Tensor,
    temperature: float = 10.0,
) -> Tensor:
    """Match distributions by the KL divergence, the mean over their bins.

    Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022,
    arXiv:2102.12252.

    Args:
        student: Logits of a distribution in each row, [R, bins].
        teacher: Logits of the same shape. No gradient flows into them.
        weight: Of each row, [R].
        divisor: Divides the sum over the rows.
        temperature: Divides both; the result is multiplied by its square.
    """
    own, shown = (side / temperature for side in (student, teacher.detach()))
    rows = kl_rows(own.log_softmax(1), shown.log_softmax(1)) / student.shape[1]
    return temperature**2 * (weight * rows).sum() / divisor


@torch.no_grad()
@full_precision
def valuable_region(
    anchors: Tensor,
    boxes: Tensor,
    *,
    level_sizes: Sequence[int],
    candidates: int = 9,
    overlap: Literal["iof", "iou"] = "iof",
) -> Tensor:
    """Return how much the box of each anchor is worth imitating, [A]; 0 outside of the region.

    The region of a box has a threshold: mean and standard deviation, added, of its overlaps with
    the anchors nearest to its centre on every level, as ATSS has it. In the region are anchors
    whose overlap, less the relative squared distance of the centres, is below the threshold but
    not below a quarter of it.

    Args:
        anchors: Of all levels, [A, 4]: left, top, right, bottom.
        boxes: Of the objects of one image, [n, 4].
        level_sizes: Numbers of anchors by level; their sum is A.
        candidates: How many anchors of each level are nearest; all where there are fewer.
        overlap: What the distance is taken from. The authors' code, which gave their numbers, has
            the intersection over the anchor ("iof"); "iou" is what their paper says.

    Raises:
        UserError: If the levels do not add up to the anchors.
    """
    if sum(level_sizes) != len(anchors):
        raise UserError(
            f"level_sizes {list(level_sizes)} add up to {sum(level_sizes)}, but there are "
            f"{len(anchors)} anchors; give the number of anchors of every level"
        )
    if not len(boxes) or not len(anchors):
        return anchors.new_zeros(len(anchors))
    places, objects = anchors[:, None], boxes.to(anchors)[None]
    shared = iou(places, objects)
    threshold = _threshold(places, objects, shared, level_sizes, candidates)
    distance = centre_distance(places, objects)
    if overlap == "iof":
        found = intersection(places, objects) / area(places).clamp_min(LEAST_AREA)
    else:
        found = shared
    near = found - distance
    inside = (near >= _NEAREST * threshold) & (near < threshold)
    return torch.where(inside, shared, 0).amax(1)


def _threshold(
    places: Tensor, objects: Tensor, shared: Tensor, sizes: Sequence[int], candidates: int
) -> Tensor:
    """Return the overlap, [n], that makes an anchor positive for each object in ATSS."""
    centres = [(box[..., :2] + box[..., 2:]) / 2 for box in (places, objects)]
    apart = (centres[0] - centres[1]).square().sum(-1)
    levels = (side.split(list(sizes)) for side in (apart, shared))
    nearest = [
        overlaps.gather(0, distances.topk(min(candidates, len(distances)), 0, largest=False)[1])
        for distances, overlaps in zip(*levels, strict=True)
    ]
    chosen = torch.cat(nearest)
    return chosen.mean(0) + (chosen.std(0) if len(chosen) > 1 else 0)


class LD(Criterion):
    """See `ld` and `valuable_region`; between two heads that predict distributions (GFL).

    Detectron2 has no such head: it is for yours. What it must give:

    * Taps of either network: two, each with all levels as a tuple. Class logits [N, A * C, H, W],
      an independent probability (sigmoid) per class, and distributions [N, A * 4 * bins, H, W] of
      the left, top, right and bottom edge of each anchor's box. A is 1 in GFL. In a head with one
      module for all levels that is `head.cls_score[*]` and `head.bbox_pred[*]`
      (`@dense_logits`, `@dense_boxes`).
    * Entries of `batch`: `gt_labels` [N, R], R anchors of all levels in the order of the maps: the
      class, the number of classes for background, -1 if ignored. For the region also `anchors`,
      one tensor [R_l, 4] in pixels per level, and `boxes`, [n, 4] of each image.
      `kd_det.distiller.DetectionDistiller` fills all of them in for a detector with
      `anchor_generator` and `label_anchors`, such as a subclass of Detectron2's FCOS.

    Three parts: distributions of positive anchors, weighted by the student's own largest class
    probability; distributions in the region; softmax of the class logits of positive anchors. The
    first two are, as in the authors' code, sums over the whole batch, divided by 4 and by 16: they
    grow with its size. The third is divided by the number of positive anchors, the mean over all
    processes and at least 1.

    Args:
        bins: Of each distribution.
        edge_weight: Weight of the distributions of positive anchors.
        region_weight: Weight of the distributions in the region.
        class_weight: Weight of the classes.
        temperature: Of the distributions.
        class_temperature: Of the classes.
        candidates: See `valuable_region`.
        overlap: See `valuable_region`.
    """

    takes = "maps"
    reads_classes = True

    def __init__(
        self,
        *,
        bins: int = 17,
        edge_weight: NonNegative = 0.25,
        region_weight: NonNegative = 0.25,
        class_weight: NonNegative = 10.0,
        temperature: Positive = 10.0,
        class_temperature: Positive = 2.0,
        candidates: int = 9,
        overlap: Literal["iof", "iou"] = "iof",
    ) -> None:
        super().__init__()
        if bins < 2 or candidates < 1:
            raise UserError(
                f"LD: bins is {bins}, candidates is {candidates}; wanted at least 2 bins (GFL has "
                "17) and 1 candidate"
            )
        self.bins = bins
        self.edge_weight, self.region_weight = edge_weight, region_weight
        self.class_weight = class_weight
        self.temperature, self.class_temperature = temperature, class_temperature
        self.candidates: int = candidates
        self.overlap: Literal["iof", "iou"] = overlap

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but logits and distributions of equal classes, bins and levels.

        Raises:
            UserError: If the taps are others, or their shapes differ.
        """
        require_branches("LD", student, teacher, "@dense_logits and @dense_boxes")
        require_equal_predictions("LD", student, teacher, 4 * self.bins)

    def forward(
        self,
        student: Sequence[Sequence[Tensor]],
        teacher: Sequence[Sequence[Tensor]],
        batch: Mapping[str, Any],
    ) -> Tensor:
        """Return the loss of logits and distributions, each a tuple of levels.

        Args:
            student: Values of the two taps.
            teacher: The same of the teacher.
            batch: See the class.
        """
        values = 4 * self.bins
        classes = student[0][0].shape[1] // (student[1][0].shape[1] // values)
        logits, shown_logits = (by_anchor(side[0], classes) for side in (student, teacher))
        edges, shown_edges = (
            by_anchor(side[1], values).unflatten(2, (4, self.bins)) for side in (student, teacher)
        )
        require_labels("LD", batch["gt_labels"], logits.shape[1])
        positive = positive_anchors(batch["gt_labels"], classes)
        chosen = positive.to(logits.dtype)
        confidence = logits.detach().sigmoid().amax(-1) * chosen
        parts = [
            self.edge_weight * self._edges(edges, shown_edges, confidence, _MAIN_DIVISOR),
            self.class_weight
            * ld(
                logits.flatten(0, 1),
                shown_logits.flatten(0, 1),
                chosen.flatten(),
                divisor=mean_count(positive),
                temperature=self.class_temperature,
            ),
        ]
        if self.region_weight:
            region = self._region(batch).to(logits.dtype)
            found = self._edges(edges, shown_edges, region, _REGION_DIVISOR)
            parts.append(self.region_weight * found)
        return torch.stack(parts).sum()

    def _edges(self, student: Tensor, teacher: Tensor, weight: Tensor, divisor: float) -> Tensor:
        """Return the loss of distributions [N, R, 4, bins], weighted by anchor, [N, R]."""
        rows = weight.unsqueeze(2).expand(*weight.shape, 4).flatten()
        own, shown = student.flatten(0, 2), teacher.flatten(0, 2)
        return ld(own, shown, rows, divisor=divisor, temperature=self.temperature)

    def _region(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the region of every image, [N, R]."""
        anchors = batch["anchors"]
        places, sizes = torch.cat(tuple(anchors)), [len(level) for level in anchors]
        rows = [
            valuable_region(
                places,
                boxes,
                level_sizes=sizes,
                candidates=self.candidates,
                overlap=self.overlap,
            )
            for boxes in batch["boxes"]
        ]
        return torch.stack(rows) if rows else places.new_zeros(0, len(places))
