"""Read class folders on disk: image files and their classes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from kd_core.data.image_files import USUAL_ENDINGS
from kd_core.data.image_listing import LeftOut, entries_of, is_hidden, is_image, list_images
from kd_core.data.image_loader import packed
from kd_core.errors import UserError, nearest
from kd_core.runtime import distributed
from torch import Tensor

Files = tuple[np.ndarray, Tensor]  # paths as bytes [N], labels int64 [N]


def class_names(folder: Path) -> list[str]:
    """Return the sorted names of a split's class folders; hidden folders are none.

    Raises:
        UserError: If there is none.
    """
    names = [e.name for e in entries_of(folder) if e.is_dir() and not is_hidden(e.name)]
    if not names:
        raise UserError(f"{folder}: no class folders in it; expected {folder}/<class>/<images>")
    return names


def scan(folder: Path, classes: list[str], *, allow_missing: bool) -> Files:
    """List the images below a split's class folders, in the order of their names.

    What is left out is said in one line: hidden files and folders, files that are not images, and
    those that are in no class folder.

    Args:
        folder: The split, one folder for each class.
        classes: Names of the classes, those of the training set.
        allow_missing: Whether a class may have no image here; a warning then names it.

    Raises:
        UserError: If the folders are not those of `classes`, or one of them has no image.
    """
    found = class_names(folder)
    if unknown := sorted(set(found) - set(classes)):
        raise UserError(
            f"{folder / unknown[0]}: the training set has no class {unknown[0]!r}"
            f"{nearest(unknown[0], classes)} ({len(unknown)} such folders)"
        )
    left_out = LeftOut()
    for entry in entries_of(folder):
        if is_hidden(entry.name):
            left_out.add("hidden", entry.name)
        elif not entry.is_dir():
            reason = "images in no class folder" if is_image(entry.name) else "not images"
            left_out.add(reason, entry.name)
    images = [list_images(folder / name, left_out) if name in found else [] for name in classes]
    left_out.print(folder)
    labels = torch.tensor(
        [label for label, files in enumerate(images) for _ in files], dtype=torch.int64
    )
    check_missing(labels, classes, str(folder), allow_missing, found)
    return packed([path for files in images for path in files]), labels


def check_missing(
    labels: Tensor,
    classes: Sequence[str],
    where: str,
    allow_missing: bool,
    folders: Sequence[str] | None = None,
) -> None:
    """Reject, or warn of, classes without an image in one part of a set.

    Args:
        labels: int64 [N].
        classes: Names of all classes.
        where: The part, for messages.
        allow_missing: Whether they are allowed.
        folders: Names of the class folders, if there are any.

    Raises:
        UserError: If a class is missing and that is not allowed, or all are.
    """
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not missing:
        return
    text = _absence(missing[0], where, folders)
    text += f" ({len(missing)} of {len(classes)} classes have none)" * (len(missing) > 1)
    if len(missing) == len(classes):
        raise UserError(text)
    if not allow_missing:
        move = "move the folder elsewhere, " if folders and missing[0] in folders else ""
        raise UserError(
            f"{text}; add images, {move}or allow it with --cfg-options "
            "data.allow_missing_classes=True"
        )
    distributed.print_note(f"warning: {text}; data.allow_missing_classes allows it")


def _absence(name: str, where: str, folders: Sequence[str] | None) -> str:
    if folders is None:
        return f"{where}: no image of class {name!r}"
    if name not in folders:
        return f"{where}: no folder for class {name!r}{nearest(name, folders)}"
    return f"{where}/{name}: no image in this class folder; images end in {USUAL_ENDINGS}, ..."


def scan_annotated(folder: Path, classes: list[str], *, allow_missing: bool) -> Files:
    """List the images of Tiny-ImageNet's official `val`, in the order of its annotation file.

    Args:
        folder: Holds `images` and `val_annotations.txt` (lines of file name, wnid, box).
        classes: The wnids of the training set.
        allow_missing: Whether a class may have no image here; a warning then names it.

    Raises:
        UserError: If a line is not understood or names an unknown class or a missing image, or a
            class has no image.
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
    found = torch.tensor(labels, dtype=torch.int64)
    check_missing(found, classes, str(annotations), allow_missing)
    return packed(paths), found
