"""What training does with the annotations of a COCO file: what it refuses, leaves out or cuts.

`tools/det_check.py` and the start of training both ask here, so that they say the same. Rules are
those of Detectron2's `load_coco_json`, `DatasetMapper` and filters.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from kd_det.data.mask_rules import mask_problems

Found = dict[str, list[Any]]

TOLERANCE = 1.0  # pixels that a box may reach outside: COCO's boxes are rounded

REFUSED = {
    "nothing_to_learn": "nothing to train on",
    "outside_files": "file names that lead out of the folder of images",
    "negative_boxes": "boxes of negative width or height",
    "centres_outside": "boxes whose centre is outside their image, where INPUT.CROP is on",
    "bad_masks": "segmentations that are neither polygons nor run lengths (RLE)",
    "missing_masks": "objects without a segmentation, where MODEL.MASK_ON is set",
    "encoded_masks": "run lengths (RLE), where INPUT.MASK_FORMAT is polygon; set it to bitmask",
    "wrong_mask_sizes": "run lengths (RLE) that do not cover their image",
    "masks_outside": "polygons that are outside their image",
    "short_polygons": "polygons of fewer than three points, which the evaluation misreads",
    "odd_keypoints": "keypoints that are not triples, as many as the model has",
    "missing_keypoints": "objects without keypoints, where MODEL.KEYPOINT_ON is set",
    "uncounted_keypoints": "objects without num_keypoints, which the evaluation reads",
}
"""Kinds that no training, or evaluation, is started with."""
LEFT_OUT = {
    "empty_boxes": "boxes without width or height",
    "lost_boxes": "boxes that are outside their image",
    "lost_polygons": "objects whose polygons all have fewer than three points",
    "empty_masks": "masks without a pixel",
}
"""Kinds that Detectron2 passes over: nothing is learned of them."""
CUT = {
    "boxes_outside": "boxes that reach outside their image",
    "cut_polygons": "masks that have polygons of fewer than three points",
}
"""Kinds that Detectron2 cuts, and learns from the rest."""


class Needs(NamedTuple):
    """What a config's training, or evaluation, wants of annotations."""

    masks: str = ""  # INPUT.MASK_FORMAT, "" for boxes alone
    keypoints: int = 0  # of an object
    min_keypoints: int = 0  # visible ones; images with fewer are left out
    keeps_empty: bool = False  # images without an object
    crops: bool = False
    evaluates: bool = False

    @classmethod
    def of(cls, cfg: CfgNode, *, training: bool) -> "Needs":
        """Return what a config wants."""
        head, on = cfg.MODEL.ROI_KEYPOINT_HEAD, cfg.MODEL.KEYPOINT_ON
        return cls(
            masks=cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else "",
            keypoints=head.NUM_KEYPOINTS if on else 0,
            min_keypoints=head.MIN_KEYPOINTS_PER_IMAGE if on and training else 0,
            keeps_empty=not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            crops=cfg.INPUT.CROP.ENABLED,
            evaluates=not training,
        )


def problems(content: Mapping[str, Any], folder: Path, needs: Needs) -> Found:
    """Return the ids of annotations by kind; `nothing_to_learn` has a reason instead.

    Args:
        content: From `read_coco`.
        folder: That the file names start from.
        needs: What is wanted of it.
    """
    images = {image["id"]: image for image in content["images"]}
    found: Found = defaultdict(list)
    kept = set(images) if needs.evaluates else _kept(content, needs)
    learned = needs.evaluates or needs.keeps_empty
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        used = image["id"] in kept and (needs.evaluates or not annotation["iscrowd"])
        kinds = list(_of(annotation, image, needs, used=used))
        for kind in kinds:
            found[kind].append(annotation["id"])
        learned = learned or (used and not LEFT_OUT.keys() & kinds)
    names = [image["file_name"] for image in content["images"]]
    found["outside_files"] = [name for name in names if _leaves_folder(name, str(folder))]
    if not images:
        found["nothing_to_learn"] = ["the list of images is empty"]
    elif not kept:
        found["nothing_to_learn"] = [
            "no image has an object that is not a crowd" + ", and keypoints" * bool(needs.keypoints)
        ]
    elif not learned:
        found["nothing_to_learn"] = ["every object is left out"]
    return {kind: ids for kind, ids in found.items() if ids}


def images_left_out(content: Mapping[str, Any], needs: Needs) -> int:
    """Return how many images training passes over, since they have no objects."""
    return len(content["images"]) - len(_kept(content, needs))


def _kept(content: Mapping[str, Any], needs: Needs) -> set[Any]:
    """Return the ids of the images that training sees."""
    images = {image["id"] for image in content["images"]}
    visible: dict[Any, int] = defaultdict(int)
    with_objects = set()
    for annotation in content["annotations"]:
        lost = "lost_polygons" in mask_problems(annotation, None, "")
        if not annotation["iscrowd"] and not lost:
            with_objects.add(annotation["image_id"])
        if not lost:
            points = annotation.get("keypoints") or []
            visible[annotation["image_id"]] += sum(v > 0 for v in points[2::3])
    kept = images if needs.keeps_empty else images & with_objects
    return {one for one in kept if visible[one] >= needs.min_keypoints}


def _of(
    annotation: Mapping[str, Any], image: Mapping[str, Any], needs: Needs, *, used: bool
) -> Iterator[str]:
    masks = list(mask_problems(annotation, image, needs.masks if used else ""))
    if needs.evaluates:
        short = needs.masks and {"lost_polygons", "cut_polygons"} & {*masks}
        yield from (kind for kind in masks if kind in REFUSED and kind != "encoded_masks")
        yield from ["short_polygons"] * bool(short)
    else:
        yield from masks
    if used and "lost_polygons" not in masks:
        yield from _keypoint_problems(annotation, needs)
        if not needs.evaluates:
            yield from _box_problems(annotation["bbox"], image, needs)


def _box_problems(box: list[float], image: Mapping[str, Any], needs: Needs) -> Iterator[str]:
    x, y, width, height = box
    if not (width > 0 and height > 0):
        yield "empty_boxes"
        if min(width, height) < 0:
            yield "negative_boxes"
        return
    if needs.crops and (x + width / 2 > image["width"] or y + height / 2 > image["height"]):
        yield "centres_outside"
    if x + width <= 0 or y + height <= 0 or x >= image["width"] or y >= image["height"]:
        yield "lost_boxes"
        return
    right, bottom = image["width"] + TOLERANCE, image["height"] + TOLERANCE
    if min(x, y) < -TOLERANCE or x + width > right or y + height > bottom:
        yield "boxes_outside"


def _keypoint_problems(annotation: Mapping[str, Any], needs: Needs) -> Iterator[str]:
    if not needs.keypoints:
        return
    points = annotation.get("keypoints")
    if not points:
        yield "missing_keypoints"
    elif len(points) != 3 * needs.keypoints:
        yield "odd_keypoints"
    if needs.evaluates and "num_keypoints" not in annotation:
        yield "uncounted_keypoints"


def _leaves_folder(name: str, folder: str) -> bool:
    inside = os.path.normpath(folder)
    path = os.path.normpath(os.path.join(inside, name))  # an absolute name stays
    return not path.startswith(os.path.join(inside, "")) and inside != "."
