"""Roles of a detector's taps (`@fpn`, `@roi_logits`, `@towers`), and which parts it has."""

from typing import Any

from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from torch import nn

ROI_LOGITS = "roi_heads.box_predictor[0]"
"""Tap of a box head's class logits, [regions, classes + 1]."""


def network_roles(network: Any) -> dict[str, list[str]]:
    """Return taps by role, without roles that a detector lacks."""
    roles = {}
    backbone: Any = getattr(network, "backbone", None)
    if hasattr(backbone, "output_shape"):
        names = getattr(network, "head_in_features", None) or list(backbone.output_shape())
        roles["fpn"] = [f"backbone[{name}]" for name in names]
    if has_part(network, "roi_heads"):
        roles["roi_logits"] = [ROI_LOGITS]
    head = getattr(network, "head", None)
    cuts = {name: _cut(getattr(head, name, None)) for name in ("cls_subnet", "bbox_subnet")}
    if min(cuts.values()) >= 0:
        roles["towers"] = [f"head.{name}.{place}[*]" for name, place in cuts.items()]
    return roles


def has_part(network: Any, name: str) -> bool:
    """Return whether a detector has a part that can run alone."""
    if name == "backbone":
        return hasattr(network, "preprocess_image") and hasattr(network, "backbone")
    if name == "head":
        return hasattr(network, "head") and hasattr(network, "head_in_features")
    heads = getattr(network, "roi_heads", None)
    return isinstance(heads, StandardROIHeads) and not isinstance(heads, CascadeROIHeads)


def _cut(tower: Any) -> int:
    """Return the index of the layer before the last but one activation of a tower, or -1."""
    if not isinstance(tower, nn.Sequential):
        return -1
    activations = [place for place, layer in enumerate(tower) if isinstance(layer, nn.ReLU)]
    return activations[-2] - 1 if len(activations) > 1 else -1
