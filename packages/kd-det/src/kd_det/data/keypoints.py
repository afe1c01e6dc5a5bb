"""Keypoints of a registered data set: their names, and which change places in flipped images."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from kd_core.errors import UserError

from kd_det.data.unlabelled import learns_without_labels

_COCO = 17  # keypoints of a person, whose sigmas the evaluation knows
_OTHER_SIDE = {"left": "right", "l": "r"}
_OTHER_SIDE |= {right: left for left, right in _OTHER_SIDE.items()}
_SIDE = re.compile(r"left|right|(?<![a-z0-9])[lr](?![a-z0-9])", re.IGNORECASE)


def keypoint_metadata(categories: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what Detectron2 must know of the keypoints of a COCO file's categories.

    Args:
        categories: Those with keypoints have a list `keypoints` of names.

    Returns:
        Names, and pairs of left and right; nothing if no category has names, or they differ.
    """
    lists = [one["keypoints"] for one in categories if one.get("keypoints")]
    if not lists or any(names != lists[0] for names in lists) or not _are_names(lists[0]):
        return {}
    names = lists[0]
    pairs = [(name, other_side(name)) for name in names]
    flips = [
        (one, other)
        for one, other in pairs
        if other in names and names.index(one) < names.index(other)
    ]
    return {"keypoint_names": names, "keypoint_flip_map": flips}


def other_side(name: str) -> str:
    """Return the name of a keypoint with left and right exchanged, such as right_eye or eye_r."""
    return _SIDE.sub(lambda match: _like(match[0], _OTHER_SIDE[match[0].lower()]), name)


def check_keypoints(cfg: CfgNode, *, training: bool) -> None:
    """Reject data without names of keypoints, or with another number of them than the model.

    Args:
        cfg: A config.
        training: Whether the training data sets are read too.

    Raises:
        UserError: Names the data set and what does not fit.
    """
    if not cfg.MODEL.get("KEYPOINT_ON", False):
        return
    count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    for name in cfg.DATASETS.TRAIN if training and not learns_without_labels(cfg) else ():
        names = MetadataCatalog.get(name).get("keypoint_names")
        if names is None:
            raise UserError(
                f"data set {name!r}: its categories have no list `keypoints` of names, or not all "
                "the same; MODEL.KEYPOINT_ON needs it, since left and right change places in "
                "flipped images"
            )
        if len(names) != count:
            raise UserError(
                f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {count}, but data set {name!r} has "
                f"{len(names)} ({', '.join(names[:4])}, ...)"
            )
    sigmas = len(cfg.TEST.KEYPOINT_OKS_SIGMAS)
    if cfg.DATASETS.TEST and (sigmas or _COCO) != count:
        raise UserError(
            f"TEST.KEYPOINT_OKS_SIGMAS has {sigmas} values; the evaluation needs one for each of "
            f"the {count} keypoints (COCO's, of a person, lie between 0.025 and 0.107)"
        )


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _like(model: str, text: str) -> str:
    """Return a text in the case of another."""
    if model.isupper():
        return text.upper()
    return text.capitalize() if model[0].isupper() else text
