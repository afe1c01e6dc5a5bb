"""The image files below a folder, each once, and those that can be decoded."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from kd_core.data.broken_images import each_problem
from kd_core.data.image_files import USUAL_ENDINGS
from kd_core.data.image_listing import LeftOut, list_images, require_folder
from kd_core.errors import UserError
from kd_core.runtime import distributed
from kd_core.runtime.console import err

_FEW = 2000  # images without a progress bar
_PARTS = ("train", "test", "val")  # folders of a set with labels


def images_below(root: str) -> list[str]:
    """Return all images below a folder, at any depth; print its form, and what is left out.

    Raises:
        UserError: If there is no such folder, or no image in it.
    """
    folder, left_out = require_folder(Path(root), f"{root}/<images>, in folders or not"), LeftOut()
    found = each_once(list_images(folder, left_out), left_out)
    left_out.print(folder)
    if not found:
        raise UserError(f"{folder}: no image in this folder; images end in {USUAL_ENDINGS}, ...")
    if text := _flattened(folder, found):
        distributed.print_note(f"{folder}: {text}")
    return found


def without_broken(files: Sequence[str], where: str) -> list[str]:
    """Decode every image once and return those that can be; a line counts the others.

    Raises:
        UserError: If none can be decoded.
    """
    shown = track(
        each_problem(files),
        f"looking for broken images among {len(files):,}",
        total=len(files),
        console=err,
        disable=len(files) <= _FEW or distributed.rank() > 0,
        transient=True,
    )
    problems = list(shown)
    found = [problem for problem in problems if problem]
    if found:
        distributed.print_note(f"{where}: left out {len(found):,} broken images ({found[0]})")
    if len(found) == len(files):
        raise UserError(f"{where}: none of its {len(files):,} images can be decoded")
    return [file for file, problem in zip(files, problems, strict=True) if not problem]


def each_once(files: Sequence[str], left_out: LeftOut) -> list[str]:
    """Return the files, each once: a link of any kind to one of them is left out."""
    seen: set[tuple[int, int]] = set()
    found = []
    for file in files:
        there = os.stat(file)
        place = there.st_dev, there.st_ino
        if there.st_ino and place in seen:
            left_out.add("further names of images that are there", os.path.basename(file))
        else:
            seen.add(place)
            found.append(file)
    return found


def _flattened(folder: Path, files: Sequence[str]) -> str:
    """Return what is printed of the folders inside; "" for a flat one."""
    inside = {os.path.relpath(os.path.dirname(file), folder) for file in files}
    if inside == {os.curdir}:
        return ""
    tops = {path.split(os.sep)[0] for path in inside}
    text = f"images of {len(inside):,} folders, whose names are not read"
    parts = [name for name in _PARTS if name in tops]
    if len(parts) > 1:
        text += (
            f"; {' and '.join(parts)} are all trained on: data.root={folder / parts[0]} takes one"
        )
    return text
