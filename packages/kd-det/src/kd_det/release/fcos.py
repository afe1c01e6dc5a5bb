"""FCOS of Detectron2: images without boxes (release 0.6 fails), and its boxes under autocast."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.modeling.box_regression import Box2BoxTransformLinear
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes
from kd_core.functional import promote
from torch import Tensor


def without_boxes_too(label_anchors: Callable[..., Any]) -> Callable[..., Any]:
    """Return release 0.6's `label_anchors` for images without boxes too: they are background."""

    def labels_and_boxes(self: Any, anchors: Sequence[Boxes], gt_instances: Sequence[Any]) -> Any:
        given = [one for one in gt_instances if len(one)]
        found = iter(zip(*label_anchors(self, anchors, given), strict=True))
        places = Boxes.cat(list(anchors))
        background = torch.full((len(places),), self.num_classes, device=places.device)
        rows = [next(found) if len(one) else (background, places) for one in gt_instances]
        return [labels for labels, _ in rows], [boxes for _, boxes in rows]

    return labels_and_boxes


def in_full_precision(apply_deltas: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return FCOS's `apply_deltas` in float32 at least, as RetinaNet's is.

    In fewer bits it rounds to several pixels, and the loss of the boxes fails.
    """

    def applied(self: Any, deltas: Tensor, boxes: Tensor) -> Tensor:
        return apply_deltas(self, promote(deltas), boxes)

    return applied


Box2BoxTransformLinear.apply_deltas = in_full_precision(Box2BoxTransformLinear.apply_deltas)
if hasattr(FCOS, "match_anchors"):  # of release 0.6 alone
    FCOS.label_anchors = without_boxes_too(FCOS.label_anchors)
