"""Names of keypoints in a COCO file, and which of them change places in a mirror."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from kd_core.errors import UserError

_SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"), ("l", "r"), ("L", "R"))
_OF_COCO = 17  # keypoints, for which pycocotools has sigmas


def note_names(name: str, content: Mapping[str, Any]) -> None:
    """Write the names of keypoints into the metadata of a data set, if its categories have them.

    Where several categories have other ones, nothing is written.
    """
    found = [tuple(one["keypoints"]) for one in content["categories"] if _has_names(one)]
    if len(set(found)) != 1:
        return
    names = list(found[0])
    meta = MetadataCatalog.get(name)
    meta.set(keypoint_names=names, keypoint_flip_map=flip_map(names))


def flip_map(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that a mirror exchanges: left_eye, right_eye; eye_l, eye_r."""
    pairs = []
    for left, right in _SIDES:
        whole = rf"(?<![A-Za-z]){left}(?![A-Za-z])" if len(left) == 1 else left
        for name in names:
            partner = re.sub(whole, right, name)
            if partner != name and partner in names and (name, partner) not in pairs:
                pairs.append((name, partner))
    return pairs


def check_keypoints(cfg: CfgNode, names: Sequence[str], *, training: bool) -> None:
    """Reject data sets without names of keypoints, or with another number than the model has.

    Args:
        cfg: A config.
        names: Of its data sets.
        training: Whether they are trained on.

    Raises:
        UserError: If they do not fit.
    """
    if not cfg.MODEL.KEYPOINT_ON:
        return
    count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    for name in names if training else ():
        found = MetadataCatalog.get(name).get("keypoint_names")
        if found is None or len(found) != count:
            came = "has no names" if found is None else f"has {len(found)} names"
            raise UserError(
                f"data set {name!r} {came} of keypoints; MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is "
                f"{count}. A category of its JSON names them, in the list 'keypoints'"
            )
    sigmas = len(cfg.TEST.KEYPOINT_OKS_SIGMAS) or _OF_COCO
    if not training and names and sigmas != count:
        raise UserError(
            f"TEST.KEYPOINT_OKS_SIGMAS has numbers for {sigmas} keypoints, but MODEL."
            f"ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {count}; set one for each keypoint"
        )


def _has_names(category: Mapping[str, Any]) -> bool:
    names = category.get("keypoints")
    return isinstance(names, list) and bool(names) and all(isinstance(n, str) for n in names)
