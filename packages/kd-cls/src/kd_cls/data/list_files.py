"""The files of an image list: where they are, and that each is there once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kd_core.data.image_files import require_image
from kd_core.errors import UserError
from kd_core.runtime import distributed

from kd_cls.data.list_columns import Entry

_NAMED = 3  # missing images


class Listed(NamedTuple):
    """An image of a list: its path and label, and its line."""

    place: str
    path: str
    label: str


def found_files(entries: Sequence[Entry], folder: Path, outside: bool) -> list[Listed]:
    """Find the files of entries; one that is listed twice alike counts once, which is said.

    Args:
        entries: Of one part. Their paths may have Windows' backslashes.
        folder: Relative paths start from it.
        outside: Whether they may leave it.

    Raises:
        UserError: If images are missing, or one has two labels.
    """
    images: dict[str, Listed] = {}
    missing: list[tuple[Entry, str]] = []
    for entry in entries:
        path = _path(entry, folder, outside)
        image = images.setdefault(path, Listed(entry.place, path, entry.label))
        if image.label != entry.label:
            raise UserError(
                f"{entry.place}: {entry.path!r} is {entry.label!r}, and {image.label!r} in "
                f"{image.place}; keep one of them"
            )
        if image.place == entry.place and not os.path.isfile(path):
            missing.append((entry, path))
    _refuse_missing(missing, len(images), folder)
    if twice := len(entries) - len(images):
        where = entries[0].place.rpartition(":")[0]
        distributed.print_note(f"{where}: {twice:,} lines repeat an image, which counts once")
    return list(images.values())


def _path(entry: Entry, folder: Path, outside: bool) -> str:
    written = entry.path
    if "\\" in written and not os.path.lexists(os.path.join(folder, written)):
        written = written.replace("\\", "/")
    path = os.path.normpath(os.path.join(folder, written))
    inside = os.path.relpath(path, folder).split(os.sep)[0] != os.pardir
    if not (inside or outside or os.path.isabs(written)):
        raise UserError(
            f"{entry.place}: {entry.path!r} leaves the folder {str(folder)!r}; write it absolute, "
            "name another folder (data.root=FOLDER), or allow it: --cfg-options "
            "data.outside_root=True"
        )
    return path


def _refuse_missing(missing: Sequence[tuple[Entry, str]], count: int, folder: Path) -> None:
    if not missing:
        return
    entry, path = missing[0]
    if os.path.lexists(path):
        require_image(path)  # the error says what it is
    names = ", ".join(repr(other.path) for other, _ in missing[:_NAMED])
    more = ", ..." if len(missing) > _NAMED else ""
    raise UserError(
        f"{entry.place}: {len(missing):,} of {count:,} images are missing: {names}{more}; relative "
        f"paths start from {str(folder.absolute())!r}, others: --cfg-options data.root=FOLDER"
    )
