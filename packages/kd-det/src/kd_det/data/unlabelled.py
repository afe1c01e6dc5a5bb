"""Folders of images without annotations, from which a student learns a teacher's maps alone."""

import os
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from kd_core.data.image_files import size_of_pixels
from kd_core.data.image_listing import LeftOut, list_images
from kd_core.errors import UserError, nearest

_MARK = "unlabelled"  # in a set's metadata: the hash of its files


def register_images(name: str, folder: str | Path) -> None:
    """Register the images below a folder as a data set for `DATASETS.TRAIN`.

    Registering the same folder twice is allowed.

    Args:
        name: Name of the set.
        folder: Searched at all depths; hidden files, and those that are not images, are left out.

    Raises:
        UserError: If there is no such folder, no image in it, or the name is in use.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        found = [other.name for other in root.parent.glob("*/")]
        raise UserError(f"{root}: there is no such folder of images{nearest(root.name, found)}")
    left_out = LeftOut()
    files = list_images(root, left_out)
    if not files:
        raise UserError(f"{root}: has no image files; name a folder of images")
    mark = _hash_of(files, root)
    if name in DatasetCatalog:
        known = MetadataCatalog.get(name)
        if known.get(_MARK) != mark or known.get("image_root") != str(root):
            raise UserError(f"data set {name!r} is registered already; choose another name")
        return
    left_out.print(root)
    DatasetCatalog.register(name, partial(_entries, files))
    MetadataCatalog.get(name).set(image_root=str(root), **{_MARK: mark})


def parse_folder(text: str) -> tuple[str, str]:
    """Split `NAME=FOLDER` into the arguments of `register_images`.

    Raises:
        UserError: If one of them is missing.
    """
    name, _, folder = text.partition("=")
    if not (name and folder):
        raise UserError(f"{text!r}: wanted NAME=FOLDER, such as photos=data/photos")
    return name, folder


def unlabelled_mark(name: str) -> str:
    """Return the hash of a folder's files, "" for a data set with annotations."""
    return str(MetadataCatalog.get(name).get(_MARK, "")) if name in DatasetCatalog else ""


def learns_without_labels(cfg: CfgNode) -> bool:
    """Return whether a config trains on folders of images without annotations."""
    return any(map(unlabelled_mark, cfg.DATASETS.TRAIN))


def labelled_sets(cfg: CfgNode) -> Sequence[str]:
    """Return the data sets of a config that have annotations; reject what the others cannot do.

    Raises:
        UserError: If folders of images are evaluated on, are mixed with annotated sets, or the
            student's own losses need boxes.
    """
    train, test = list(cfg.DATASETS.TRAIN), list(cfg.DATASETS.TEST)
    plain = [name for name in train if unlabelled_mark(name)]
    for name in test:
        if unlabelled_mark(name):
            raise UserError(
                f"DATASETS.TEST: {name!r} is a folder of images without boxes, on which nothing "
                "can be evaluated; name an annotated set, or set DATASETS.TEST ()"
            )
    if not plain:
        return [*train, *test]
    if len(plain) < len(train):
        other = next(name for name in train if name not in plain)
        raise UserError(
            f"DATASETS.TRAIN: {plain[0]!r} has no boxes and {other!r} has; train on one kind, or "
            "register the images of both as folders"
        )
    if cfg.KD.TASK_WEIGHT != 0 or not cfg.KD.TERMS:
        raise UserError(
            f"DATASETS.TRAIN: {plain[0]!r} is a folder of images without boxes, which the "
            "student's own losses need; set KD.TASK_WEIGHT 0.0, and KD.TERMS to learn from"
        )
    if cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        raise UserError(
            "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler counts the categories of boxes, "
            f"which {plain[0]!r} does not have; set TrainingSampler"
        )
    return test


def _entries(files: Sequence[str]) -> list[dict[str, Any]]:
    """Return the files as Detectron2's data sets have them; only their headers are read."""
    sizes = map(size_of_pixels, files)
    return [
        {"file_name": file, "image_id": number, "height": height, "width": width}
        for number, (file, (height, width)) in enumerate(zip(files, sizes, strict=True))
    ]


def _hash_of(files: Sequence[str], root: Path) -> str:
    """Return a hash of the names and sizes of files; their contents may be many gigabytes."""
    found = sha256()
    for file in files:
        found.update(f"{os.path.relpath(file, root)}\0{os.path.getsize(file)}\0".encode())
    return found.hexdigest()
