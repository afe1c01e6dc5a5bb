"""Register data sets in the COCO format; they are checked before any work starts."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.file_io import PathManager
from kd_core.errors import UserError, nearest

from kd_det.data.coco_file import read_coco
from kd_det.data.contents import check_contents
from kd_det.data.keypoints import check_keypoints, keypoint_metadata
from kd_det.data.unlabelled import labelled_sets

CLASS_KEYS = {
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
    "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "PanopticFPN": "MODEL.ROI_HEADS.NUM_CLASSES",
}


def register_coco(name: str, json_file: str | Path, image_root: str | Path) -> None:
    """Register a data set under a name for `DATASETS.TRAIN` and `DATASETS.TEST`.

    Registering the same files twice is allowed. Only the first image is checked here;
    `tools/det_check.py` reads all.

    Args:
        name: Name of the set.
        json_file: COCO's instances file.
        image_root: Folder that its `file_name`s start from.

    Raises:
        UserError: If a path is missing, the file is of another kind, or the name is in use.
    """
    files = {"json_file": str(Path(json_file).absolute())}
    files["image_root"] = str(Path(image_root).absolute())
    if name in DatasetCatalog:
        _check_same(name, files)
        return
    content = read_coco(json_file)
    require_images(image_root, content)
    register_coco_instances(name, {}, **files)
    names = {category["id"]: category["name"] for category in content["categories"]}
    places = {number: place for place, number in enumerate(sorted(names))}
    metadata = keypoint_metadata(content["categories"])
    metadata["thing_classes"] = [names[number] for number in sorted(names)]
    MetadataCatalog.get(name).set(**metadata, thing_dataset_id_to_contiguous_id=places)


def parse_set(text: str) -> tuple[str, str, str]:
    """Split `NAME=JSON:IMAGES` into its three parts, the arguments of `register_coco`.

    A `~` is written out: shells leave it behind `=` and `:`.

    Raises:
        UserError: If one of them is missing.
    """
    name, _, paths = text.partition("=")
    json_file, _, image_root = paths.rpartition(":")
    if not (name and json_file and image_root):
        raise UserError(
            f"{text!r}: wanted NAME=JSON:IMAGES, such as birds_train=birds/train.json:birds/images"
        )
    return name, os.path.expanduser(json_file), os.path.expanduser(image_root)


def require_images(image_root: str | Path, content: Mapping[str, Any]) -> None:
    """Reject a folder without the first image of a COCO file.

    Raises:
        UserError: If the folder or that image is missing.
    """
    folder = Path(image_root)
    if not folder.is_dir():
        found = [other.name for other in folder.parent.glob("*/")]
        raise UserError(f"{folder}: there is no such folder of images{nearest(folder.name, found)}")
    for image in content["images"][:1]:
        if not (folder / image["file_name"]).is_file():
            raise UserError(
                f"{folder}: does not contain {image['file_name']!r}, the first image of the "
                "annotation file; name the folder that its file names start from"
            )


def category_names(name: str) -> list[str]:
    """Return the categories of a registered data set, in the order of a detector's classes.

    Raises:
        UserError: If there is no such set, or its annotation file is missing.
    """
    if name not in DatasetCatalog:
        raise UserError(
            f"no data set {name!r} is registered{nearest(name, DatasetCatalog)}; register it"
        )
    meta = MetadataCatalog.get(name)
    file = meta.get("json_file")
    if file and not PathManager.isfile(file):
        raise UserError(
            f"data set {name!r}: no file {file}; Detectron2's own sets are searched in "
            "$DETECTRON2_DATASETS, else in ./datasets"
        )
    if meta.get("thing_classes") is None:
        DatasetCatalog.get(name)  # some sets have their categories only after they are read
    return list(meta.get("thing_classes") or ())


def num_classes(name: str) -> int:
    """Return the number of categories of a registered data set; see `category_names`."""
    return len(category_names(name))


def check_data(cfg: CfgNode, *, training: bool = True) -> None:
    """Reject a config whose data sets are unknown, do not fit its model, or cannot be learned from.

    What Detectron2 passes over is said, a line for each data set.

    Args:
        cfg: A config.
        training: Whether `DATASETS.TRAIN` is used too.

    Raises:
        UserError: Names the set and what does not fit.
    """
    if training and not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name a registered data set")
    names = [n for n in labelled_sets(cfg) if training or n in cfg.DATASETS.TEST]
    if not (training or names):
        raise UserError("DATASETS.TEST is empty, so nothing is evaluated; name a data set")
    if names:
        check_categories(cfg, names)
    check_keypoints(cfg, training=training)
    check_contents(cfg, [n for n in names if n in cfg.DATASETS.TRAIN] if training else ())


def check_categories(cfg: CfgNode, names: Sequence[str], role: str = "student") -> None:
    """Reject data sets that differ in categories, or a model with another number of classes.

    Args:
        cfg: The model's config; its own `DATASETS` is not used.
        names: Registered data sets.
        role: Whose config it is, for the message.

    Raises:
        UserError: Names the key and both numbers.
    """
    categories = {name: category_names(name) for name in names}
    first, wanted = next(iter(categories.items()))
    for name, found in categories.items():
        if found != wanted:
            raise UserError(
                f"the categories of the data sets differ: {first!r} has {_shown(wanted)}, {name!r} "
                f"has {_shown(found)}"
            )
    key = CLASS_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
    if key is None:  # the user's own model, or one without classes
        return
    node, _, leaf = key.removeprefix("MODEL.").partition(".")
    count = cfg.MODEL[node][leaf]
    if count != len(wanted):
        raise UserError(
            f"{role}: {key} is {count}, but data set {first!r} has {_shown(wanted)}; "
            f"{key} {len(wanted)} would fit"
        )


def _shown(names: Collection[str]) -> str:
    listed = ", ".join(list(names)[:6]) + (", ..." if len(names) > 6 else "")
    return f"{len(names)} categories ({listed})"


def _check_same(name: str, files: Mapping[str, str]) -> None:
    meta = MetadataCatalog.get(name)
    if any(meta.get(key) != path for key, path in files.items()):
        raise UserError(
            f"data set {name!r} is registered already, as {meta.get('json_file')} with images in "
            f"{meta.get('image_root')}; choose another name"
        )
