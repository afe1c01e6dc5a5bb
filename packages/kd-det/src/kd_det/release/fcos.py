"""FCOS of release 0.6, whose targets need a box in every image; the official main needs none."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes


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


if hasattr(FCOS, "match_anchors"):  # of release 0.6 alone
    FCOS.label_anchors = without_boxes_too(FCOS.label_anchors)
