"""Roles of a detector's taps: names such as `@fpn` for paths that differ between detectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from kd_det.networks.parts import parts_of

_RPN_LOGITS = "proposal_generator.rpn_head.objectness_logits"


@dataclass(frozen=True)
class Role:
    """A name for taps of a detector.

    Args:
        what: What the taps give.
        find: Returns them; an empty list for a detector that has none.
    """

    what: str
    find: Callable[[Any], list[str]]


def network_roles(network: Any) -> dict[str, list[str]]:
    """Return taps by role, without roles that a detector lacks."""
    return {name: taps for name, role in ROLES.items() if (taps := role.find(network))}


def _fpn(network: Any) -> list[str]:
    backbone: Any = getattr(network, "backbone", None)
    if not hasattr(backbone, "output_shape"):
        return []
    names = getattr(network, "head_in_features", None) or list(backbone.output_shape())
    return [f"backbone[{name}]" for name in names]


def _roi_logits(network: Any) -> list[str]:
    keys = [part.key for part in parts_of(network)]
    return [f"{key}[0]" for key in keys if key.startswith("roi_heads.box_predictor")]


def _inside(part: str, layer: str) -> Callable[[Any], list[str]]:
    """Return a finder of a layer in a part that runs alone."""

    def find(network: Any) -> list[str]:
        found = any(one.key == part for one in parts_of(network))
        return [f"{part}.{layer}"] if found and hasattr(network.get_submodule(part), layer) else []

    return find


def _rpn_logits(network: Any) -> list[str]:
    if not _inside("proposal_generator.rpn_head", "objectness_logits")(network):
        return []
    levels = range(len(network.proposal_generator.in_features))
    return [f"{_RPN_LOGITS}[*][{level}]" for level in levels]


def _towers(network: Any) -> list[str]:
    head = getattr(network, "head", None)
    cuts = {name: _cut(getattr(head, name, None)) for name in ("cls_subnet", "bbox_subnet")}
    if min(cuts.values()) < 0:
        return []
    return [f"head.{name}.{place}[*]" for name, place in cuts.items()]


def _dense(layer: str) -> Callable[[Any], list[str]]:
    """Return a finder of a layer by which a dense head predicts."""

    def find(network: Any) -> list[str]:
        found = isinstance(getattr(getattr(network, "head", None), layer, None), nn.Module)
        return [f"head.{layer}[*]"] if found else []

    return find


def advice_without(role: str) -> str:
    """Return what to do where a detector lacks a role; "" if not known."""
    owners = _OWNERS.get(role)
    return f"{owners} have it; take a method on @fpn, such as PKD" if owners else ""


def _cut(tower: Any) -> int:
    """Return the index of the layer before the last but one activation of a tower, or -1."""
    if not isinstance(tower, nn.Sequential):
        return -1
    activations = [place for place, layer in enumerate(tower) if isinstance(layer, nn.ReLU)]
    return activations[-2] - 1 if len(activations) > 1 else -1


_DENSE = "dense detectors (RetinaNet, FCOS)"
_OWNERS = {
    **dict.fromkeys(("towers", "dense_logits", "dense_boxes"), _DENSE),
    "roi_logits": "detectors with a box head (Faster R-CNN)",
    "mask_logits": "detectors with a mask head (Mask R-CNN)",
    "keypoint_maps": "detectors with a keypoint head (Keypoint R-CNN)",
    "sem_logits": "detectors with a semantic head (Panoptic and Semantic FPN)",
    "rpn_logits": "detectors with an RPN (Faster R-CNN)",
}
"""Which detectors have a role, for messages; all with a backbone have @fpn."""

ROLES = {
    "fpn": Role("maps of the backbone, large to small", _fpn),
    "roi_logits": Role("class logits of regions; of a cascade, one tap a stage", _roi_logits),
    "mask_logits": Role(
        "mask logits of foreground regions, a channel for each class",
        _inside("roi_heads.mask_head", "predictor"),
    ),
    "keypoint_maps": Role(
        "maps of regions with keypoints, a channel for each keypoint",
        _inside("roi_heads.keypoint_head", "score_lowres"),
    ),
    "sem_logits": Role(
        "semantic logits, a channel for each class", _inside("sem_seg_head", "predictor")
    ),
    "rpn_logits": Role("objectness of an RPN's anchors, one tap a level", _rpn_logits),
    "towers": Role("a dense head's two towers before their last layer, of all levels", _towers),
    "dense_logits": Role("class logits of a dense head, of all levels", _dense("cls_score")),
    "dense_boxes": Role("what a dense head predicts of boxes, of all levels", _dense("bbox_pred")),
}
"""Every role. Where student and teacher are one detector, a criterion between them gives 0."""
