"""The image files of a set without labels: below a folder or in a list, each once."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kd_core.data.image_files import USUAL_ENDINGS, read_image
from kd_core.data.image_listing import LeftOut, is_image, list_images
from kd_core.errors import UserError
from kd_core.files.tables import Row, read_table
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from rich.progress import track

from kd_cls.data.folders import require
from kd_cls.data.list_columns import Entry, columns_named
from kd_cls.data.list_files import found_files

_READERS = 8  # threads: decoders release Python's lock
_FEW = 2000  # images without a progress bar
_PARTS = ("train", "test", "val")  # folders of a set with labels


def images_below(root: str) -> list[str]:
    """Return all images below a folder, at any depth; what is left out, and its form, is told.

    Raises:
        UserError: If there is no such folder, or no image in it.
    """
    folder, left_out = require(Path(root), f"{root}/<images>, in folders or not"), LeftOut()
    found = _each_once(list_images(folder, left_out), left_out)
    left_out.tell(folder)
    if not found:
        raise UserError(f"{folder}: no image in this folder; images end in {USUAL_ENDINGS}, ...")
    if distributed.rank() == 0 and (text := _flattened(folder, found)):
        err.print(f"{folder}: {text}", markup=False)
    return found


def images_listed(csv: str, root: str | None, column: str | None, *, outside: bool) -> list[str]:
    """Return the images of a list: a path in each line, or a table with a column of paths.

    Args:
        csv: The list. Other columns are not read.
        root: Folder that relative paths start from; None takes that of the list.
        column: Name of the column, if it is none of the usual names.
        outside: Whether relative paths may leave the folder.

    Raises:
        UserError: If it cannot be read, or images are missing.
    """
    folder, left_out = Path(csv).parent if root is None else Path(root), LeftOut()
    listed = found_files(_entries(csv, column), folder, outside)
    found = _each_once([image.path for image in listed], left_out)
    left_out.tell(csv)
    return found


def without_broken(files: Sequence[str], where: str) -> list[str]:
    """Decode every image once and return those that can be; one line tells of the others.

    Raises:
        UserError: If none can be decoded.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        shown = track(
            readers.map(_problem, files),
            f"looking for broken images among {len(files):,}",
            total=len(files),
            console=err,
            disable=len(files) <= _FEW or distributed.rank() > 0,
            transient=True,
        )
        problems = list(shown)
    broken = [problem for problem in problems if problem]
    if broken and distributed.rank() == 0:
        err.print(f"{where}: left out {len(broken):,} broken images ({broken[0]})", markup=False)
    if len(broken) == len(files):
        raise UserError(f"{where}: none of its {len(files):,} images can be decoded")
    return [file for file, problem in zip(files, problems, strict=True) if not problem]


def _problem(file: str) -> str:
    try:
        read_image(file)
    except UserError as error:
        return str(error)
    return ""


def _each_once(files: Sequence[str], left_out: LeftOut) -> list[str]:
    """Return the files without further names, by links of any kind, of one that is there."""
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
    """Return what is told of the folders inside; "" for a flat one."""
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


def _entries(csv: str, column: str | None) -> list[Entry]:
    def columns_of(rows: list[Row]) -> list[int]:
        return columns_named(rows[0].cells, "path", column)

    def is_table(rows: list[Row]) -> bool:
        return bool(rows) and len(rows[0].cells) > 1 and len(columns_of(rows)) == 1

    table = read_table(csv, is_table)
    rows = table.rows
    if _are_paths(rows) and column is None:
        place = 0
    elif len(columns := columns_of(rows)) == 1:
        place, rows = columns[0], rows[1:]
    else:
        raise UserError(
            f"{csv}: wanted the path of an image in each line, or a first line of names with one "
            f"column of paths, got {table.separator.join(rows[0].cells)!r:.120}; name it: "
            "--cfg-options data.path_column=NAME"
        )
    if not rows:
        raise UserError(f"{csv}: no images in it, only the line of names")
    return [Entry(table.place(row), (*row.cells, "")[place], "", "") for row in rows]


def _are_paths(rows: Sequence[Row]) -> bool:
    """Return whether every line is the path of an image alone."""
    return all(len(row.cells) == 1 and is_image(row.cells[0]) for row in rows)
