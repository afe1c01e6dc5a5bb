"""Register data sets in the COCO format; they are checked before any work starts."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.file_io import PathManager
from kd_core.errors import UserError, nearest

_KEYS: dict[str, set[str]] = {
    "categories": {"id", "name"},
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area", "iscrowd"},
}
"""Keys of each entry that training and COCO's evaluation read."""
_CLASS_KEYS = {
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
    meta = {"thing_classes": [names[number] for number in sorted(names)]}
    MetadataCatalog.get(name).set(**meta, thing_dataset_id_to_contiguous_id=places)


def parse_set(text: str) -> tuple[str, str, str]:
    """Split `NAME=JSON:IMAGES` into its three parts, the arguments of `register_coco`.

    Raises:
        UserError: If one of them is missing.
    """
    name, _, paths = text.partition("=")
    json_file, _, image_root = paths.rpartition(":")
    if not (name and json_file and image_root):
        raise UserError(
            f"{text!r}: wanted NAME=JSON:IMAGES, such as birds_train=birds/train.json:birds/images"
        )
    return name, json_file, image_root


def read_coco(json_file: str | Path) -> dict[str, Any]:
    """Read a COCO instances file.

    Raises:
        UserError: If it is missing, not JSON or of another kind; if an entry lacks a key, has the
            id of another, or names an image or category that does not exist.
    """
    file = Path(json_file)
    if not file.is_file():
        found = [other.name for other in file.parent.glob("*.json")]
        raise UserError(f"{file}: there is no such annotation file{nearest(file.name, found)}")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error})") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in _KEYS
    ):
        came = (
            f"the keys {', '.join(content)}"
            if isinstance(content, dict)
            else type(content).__name__
        )
        raise UserError(
            f"{file}: not a COCO instances file; wanted lists by the keys images, annotations and "
            f"categories, got {came}"
        )
    for part, keys in _KEYS.items():
        _check_entries(f"{file}: {part}", content[part], keys)
    if not content["categories"]:
        raise UserError(f"{file}: its list of categories is empty")
    _check_boxes(str(file), content["annotations"])
    for key, part in (("image_id", "images"), ("category_id", "categories")):
        _check_references(str(file), content, key, part)
    return content


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


def check_data(cfg: CfgNode) -> None:
    """Reject a config whose data sets are unknown, differ in categories, or do not fit its model.

    Raises:
        UserError: Names the set and what does not fit.
    """
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name a registered data set")
    check_categories(cfg, (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))


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
    key = _CLASS_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
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


def _check_entries(where: str, entries: Sequence[Any], keys: set[str]) -> None:
    """Reject an entry without a key, or with the id of another."""
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not keys <= entry.keys():
            raise UserError(
                f"{where}[{number}]: wanted the keys {', '.join(sorted(keys))}, got {_kind(entry)}"
            )
    seen: dict[Any, int] = {}
    for number, entry in enumerate(entries):
        if seen.setdefault(entry["id"], number) != number:
            raise UserError(
                f"{where}[{number}]: has the id {entry['id']} of {where}[{seen[entry['id']]}]"
            )


def _kind(value: Any) -> str:
    return f"the keys {', '.join(value)}" if isinstance(value, dict) else type(value).__name__


def _check_boxes(where: str, annotations: Sequence[Mapping[str, Any]]) -> None:
    for annotation in annotations:
        box = annotation["bbox"]
        if not (
            isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
        ):
            raise UserError(
                f"{where}: bbox of annotation {annotation['id']}: wanted [left, top, width, "
                f"height] in pixels, got {box!r}"
            )


def _check_references(where: str, content: Mapping[str, Any], key: str, part: str) -> None:
    known = {entry["id"] for entry in content[part]}
    wrong = [entry for entry in content["annotations"] if entry[key] not in known]
    if wrong:
        raise UserError(
            f"{where}: annotation {wrong[0]['id']} has {key} {wrong[0][key]}, which is none of "
            f"the {len(known)} {part} ({len(wrong)} such annotations)"
        )
