"""Roles of a detector's taps (`@fpn`, `@roi_logits`, `@dense_boxes`), and which parts it has."""

from typing import Any

from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from torch import nn

ROI_LOGITS = "roi_heads.box_predictor[0]"
"""Tap of a box head's class logits, [regions, classes + 1]."""

_DENSE = {"dense_logits": "cls_score", "dense_boxes": "bbox_pred"}
"""Modules of a dense head that predict, by role."""


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
    for role, name in _DENSE.items():
        if isinstance(getattr(head, name, None), nn.Module):
            roles[role] = [f"head.{name}[*]"]
    return roles


def advice_without(role: str) -> str:
    """Return what to do where a detector lacks a role; "" if not known."""
    if role in ("towers", *_DENSE):
        return "dense detectors (RetinaNet, FCOS) have it; take a method on @fpn, such as PKD"
    if role == "roi_logits":
        return "detectors with a box head (Faster R-CNN) have it; take a method on @fpn, as PKD"
    return ""


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
