"""Read class folders on disk: image files and their classes."""

import os
from pathlib import Path

import numpy as np
import torch
from kd_core.data.image_files import ENDINGS, list_images
from kd_core.data.image_loader import packed
from kd_core.errors import UserError, nearest
from torch import Tensor

Files = tuple[np.ndarray, Tensor]  # paths as bytes [N], labels int64 [N]


def require(folder: Path, expected: str) -> Path:
    """Return the folder if it exists.

    Args:
        folder: Any folder of a data set.
        expected: The layout and how to get it, for the message.

    Raises:
        UserError: Names the first missing part of the path and the nearest name.
    """
    if folder.is_dir():
        return folder
    missing = folder
    while not missing.parent.is_dir():
        missing = missing.parent
    siblings = [entry.name for entry in missing.parent.iterdir() if entry.is_dir()]
    raise UserError(
        f"{folder}: there is no folder {missing.name!r} in {str(missing.parent.absolute())!r}"
        f"{nearest(missing.name, siblings)}; expected {expected}"
    )


def class_names(folder: Path) -> list[str]:
    """Return the sorted names of a split's class folders.

    Raises:
        UserError: If there is none.
    """
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise UserError(f"{folder}: no class folders in it; expected {folder}/<class>/<images>")
    return names


def scan(folder: Path, classes: list[str]) -> Files:
    """List the images below a split's class folders, in the order of their names.

    Args:
        folder: The split, one folder for each class.
        classes: Names of the classes, those of the training set.

    Raises:
        UserError: If the folders are not those of `classes`, or one of them has no image.
    """
    found = class_names(folder)
    if unknown := sorted(set(found) - set(classes)):
        raise UserError(
            f"{folder / unknown[0]}: the training set has no class {unknown[0]!r}"
            f"{nearest(unknown[0], classes)} ({len(unknown)} such folders)"
        )
    if lacking := sorted(set(classes) - set(found)):
        raise UserError(
            f"{folder}: no folder for class {lacking[0]!r} of the training set"
            f"{nearest(lacking[0], found)} ({len(lacking)} such classes)"
        )
    images = [list_images(folder / name) for name in classes]
    labels = torch.tensor(
        [label for label, files in enumerate(images) for _ in files], dtype=torch.int64
    )
    counts = torch.bincount(labels, minlength=len(classes))
    if (empty := (counts == 0).nonzero()).numel():
        raise UserError(
            f"{folder / classes[int(empty[0])]}: no image in this class folder; "
            f"images end in {' '.join(ENDINGS)}"
        )
    return packed([path for files in images for path in files]), labels


def scan_annotated(folder: Path, classes: list[str]) -> Files:
    """List the images of Tiny-ImageNet's official `val`, in the order of its annotation file.

    Args:
        folder: Holds `images` and `val_annotations.txt` (lines of file name, wnid, box).
        classes: The wnids of the training set.

    Raises:
        UserError: If a line is not understood or names an unknown class or a missing image.
    """
    annotations = folder / "val_annotations.txt"
    present = set(os.listdir(folder / "images"))
    numbers = {name: number for number, name in enumerate(classes)}
    paths: list[str] = []
    labels: list[int] = []
    for line, text in enumerate(annotations.read_text().splitlines(), 1):
        name, wnid, *_ = [*text.split("\t"), "", ""]
        if wnid not in numbers:
            raise UserError(
                f"{annotations}:{line}: {wnid!r} is not a class of the training set"
                f"{nearest(wnid, classes)}; expected file name, wnid and box, separated by tabs"
            )
        if name not in present:
            raise UserError(f"{annotations}:{line}: {folder / 'images'} has no image {name!r}")
        paths.append(str(folder / "images" / name))
        labels.append(numbers[wnid])
    return packed(paths), torch.tensor(labels, dtype=torch.int64)
