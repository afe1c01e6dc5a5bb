"""Which columns of an image list are paths, labels and parts, with a header or without."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kd_core.data.image_listing import is_image
from kd_core.errors import UserError, nearest
from kd_core.files.tables import Row, Table, cut_to, read_table

_NAMES = {
    "path": (
        *("path", "file", "filename", "filepath", "image", "images", "img", "imagepath"),
        *("imgpath", "imagefile", "imgfile", "imagename", "imgname"),
    ),
    "label": (
        *("label", "labels", "class", "classname", "labelname", "category", "categoryname"),
        *("target", "targets", "classid", "labelid", "categoryid"),
    ),
    "split": ("split", "set", "subset", "fold", "part", "partition"),
}
"""Usual names of columns, in lower case, without spaces, `_` and `-`."""

PARTS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation", "holdout"),
}
"""Words in a column of parts, in lower case."""


class Entry(NamedTuple):
    """A row of an image list, as it is written; `part` is a key of `PARTS`, or "" without one."""

    place: str
    path: str
    label: str
    part: str


def read_entries(file: str, given: Mapping[str, str | None]) -> list[Entry]:
    """Read an image list.

    Args:
        file: A table with columns of usual names, or without a first line of names if there is
            but one way to read it.
        given: Names of columns where they are not usual or not clear, by `path`, `label`, `split`.

    Raises:
        UserError: If columns are not known, or a cell is empty or not a known part.
    """
    table = read_table(file, lambda rows: _has_names(rows, given) or _has_none(rows, given))
    if _has_names(table.rows, given) or not _has_none(table.rows, given):
        columns, rows = _by_names(table, given), table.rows[1:]
    else:
        columns, rows = _by_content(table.rows), table.rows
    if not rows:
        raise UserError(f"{file}: no images in it, only the line of names")
    width = len(table.rows[0].cells)
    return [_entry(table, cut_to(table, row, width), columns) for row in rows]


def _has_names(rows: list[Row], given: Mapping[str, str | None]) -> bool:
    """Return whether the first line names a path and a label."""
    found = [columns_named(rows[0].cells, kind, given[kind]) for kind in ("path", "label") if rows]
    return bool(found) and all(found)


def _has_none(rows: list[Row], given: Mapping[str, str | None]) -> bool:
    """Return whether all lines, the first too, are two or three cells with an image's name."""
    return not any(given.values()) and bool(rows) and bool(_by_content(rows))


def columns_named(cells: Sequence[str], kind: str, name: str | None) -> list[int]:
    """Return the columns of one kind, a key of `_NAMES`, by their names."""
    wanted = _NAMES[kind] if name is None else (_plain(name),)
    return [number for number, cell in enumerate(cells) if _plain(cell) in wanted]


def _by_names(table: Table, given: Mapping[str, str | None]) -> dict[str, int]:
    cells, columns = table.rows[0].cells, {}
    for kind in _NAMES:
        found, name = columns_named(cells, kind, given[kind]), given[kind]
        option = f"--cfg-options data.{kind}_column=NAME"
        if len(found) > 1:
            names = " and ".join(repr(cells[number]) for number in found)
            raise UserError(f"{table.file}: {names} may be the {kind}; name one: {option}")
        if found:
            columns[kind] = found[0]
        elif kind != "split" or name is not None:
            wanted = f"no column {name!r}" if name else f"no column is the {kind}"
            hint = nearest(name or kind, [cell for cell in cells if cell])
            raise UserError(
                f"{table.file}: {wanted} in its first line {table.separator.join(cells)!r:.120}"
                f"{hint}; wanted such as path,label,split; others: {option}"
            )
    return columns


def _by_content(rows: Sequence[Row]) -> dict[str, int]:
    """Return the columns of a table without names; {} if it cannot be read in just one way."""
    width = len(rows[0].cells)
    if width not in (2, 3) or any(len(row.cells) != width for row in rows):
        return {}
    places = range(width)
    paths = [n for n in places if all(is_image(row.cells[n]) for row in rows)]
    parts = [n for n in places if all(_part(row.cells[n]) for row in rows)] if width == 3 else []
    if len(paths) != 1 or len(parts) != width - 2:
        return {}
    (label,) = {*places} - {*paths, *parts}
    return {"path": paths[0], "label": label, **({"split": parts[0]} if parts else {})}


def _entry(table: Table, row: Row, columns: Mapping[str, int]) -> Entry:
    cells = {kind: row.cells[number] for kind, number in columns.items()}
    for kind, cell in cells.items():
        if not cell:
            raise UserError(f"{table.place(row)}: the {kind} is empty; fill it, or remove the line")
    part = ""
    if "split" in cells and not (part := _part(cells["split"])):
        words = [words[0] for words in PARTS.values()]
        raise UserError(
            f"{table.place(row)}: the part {cells['split']!r} is not known"
            f"{nearest(cells['split'], words)}; wanted {', '.join(words)}, or no such column"
        )
    return Entry(table.place(row), cells["path"], cells["label"], part)


def _part(cell: str) -> str:
    """Return the part that a word means, or ""."""
    word = cell.strip().lower()
    return next((part for part, words in PARTS.items() if word in words), "")


def _plain(name: str) -> str:
    return name.strip().lower().translate(str.maketrans("", "", " _-"))
