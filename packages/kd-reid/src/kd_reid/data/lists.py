"""Read a list of images: a table of paths, identities and, if known, cameras and parts."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from kd_core.errors import UserError, nearest
from kd_core.files.tables import Row, Table, cut_to, read_table

from kd_reid.data.parts import NAMES
from kd_reid.data.reading import COLUMNS, PARTS, Kind, Reading, option
from kd_reid.data.records import Record, Splits, in_order

ENDINGS = (".csv", ".tsv", ".txt")
_USUAL = {
    "path": (
        *("path", "file", "filename", "filepath", "image", "img", "imagepath", "imgpath"),
        *("imagefile", "imgfile", "imagename", "imgname"),
    ),
    "identity": (
        *("identity", "identityid", "id", "pid", "personid", "label", "vehicle", "vehicleid"),
        *("vid", "identitylabel"),
    ),
    "camera": ("camera", "cam", "camid", "cameraid", "camname", "cameraname"),
    "split": ("split", "set", "subset", "part", "partition"),
}
"""Usual names of columns, in small letters, without spaces, `_` and `-`."""


class _Listed(NamedTuple):
    record: Record
    part: str  # "" where there is no such column


def read_list(file: Path, reading: Reading) -> tuple[str, Kind, Splits]:
    """Read a list of images, with a first line of names.

    Args:
        file: In UTF-8, separated by commas, semicolons, tabs or bars. Paths start from its folder;
            they may have the backslashes of Windows. Columns with other names are not read.
        reading: What the user says; its `columns` are names of columns.

    Returns:
        What it is, for people; whether it has parts; and its images.

    Raises:
        UserError: If the file or a column is missing, it is not clear which column is meant, a cell
            is empty, a part is not known, or a path is repeated.
    """
    reading.refuse(file, "a list of images has a column for it", "camera", "identity", "parts")
    given = reading.columns or {}
    table = read_table(file, lambda rows: _has_names(rows, given))
    columns = _columns(table, given)
    width = len(table.rows[0].cells)
    if len(table.rows) == 1:
        raise UserError(f"{file}: no images in it, only the header")
    listed = [_entry(table, row, width, columns) for row in table.rows[1:]]
    _check_once(file, [entry.record.path for entry in listed])
    names = ", ".join(table.rows[0].cells[place] for place in columns.values())
    form = f"a list with the columns {names}"
    if "split" not in columns:
        return form, "people", Splits([], [], in_order(entry.record for entry in listed))
    return form, *_divided(file, listed)


def _divided(file: Path, listed: Sequence[_Listed]) -> tuple[Kind, Splits]:
    """Return the images by the part that their line says."""
    images = {part: in_order(e.record for e in listed if e.part == part) for part in PARTS}
    train, query, gallery, test = (images[part] for part in PARTS)
    if gallery and test:
        raise UserError(
            f"{file}: lines of gallery and of test; with a gallery, test has no meaning: write one"
        )
    if query and (gallery or test):
        return "parts", Splits(train, query, gallery or test)
    if test:
        return "test", Splits(train, [], test)
    raise UserError(
        f"{file}: its column of parts has no lines of {'gallery' if query else 'query'}; wanted "
        "query and gallery, or test, of which queries are chosen; to split all people: remove "
        "the column"
    )


def _entry(table: Table, row: Row, width: int, columns: Mapping[str, int]) -> _Listed:
    short = Row(row.line, row.cells + ("",) * (width - len(row.cells)))
    row = cut_to(table, short, width)
    cells = {kind: row.cells[number] for kind, number in columns.items()}
    for kind, cell in cells.items():
        if not cell:
            raise UserError(f"{table.place(row)}: {kind} is empty; fill it, or remove the line")
    path = _path(table.place(row), cells["path"], table.file.parent)
    part = _part(table.place(row), cells["split"]) if "split" in cells else ""
    return _Listed(Record(path, cells["identity"], cells.get("camera")), part)


def _path(place: str, written: str, folder: Path) -> str:
    """Return the path of an image; backslashes are those of Windows unless there is such a file."""
    path = folder / written
    if "\\" in written and not os.path.lexists(path):
        windows = PureWindowsPath(written)
        if windows.drive and os.name != "nt":
            raise UserError(
                f"{place}: {written!r} is an absolute path of Windows; write it relative to the "
                "folder of the list"
            )
        path = folder / windows.as_posix()
    return os.path.normpath(path)


def _part(place: str, cell: str) -> str:
    for part, names in NAMES.items():
        if cell.lower() in names:
            return part
    raise UserError(
        f"{place}: the part {cell!r} is not known{nearest(cell.lower(), PARTS)}; wanted "
        f"{', '.join(PARTS)}; remove other lines"
    )


def _has_names(rows: Sequence[Row], given: Mapping[str, str]) -> bool:
    """Return whether the first line names a path and an identity."""
    found = [_named(rows[0].cells, kind, given) for kind in COLUMNS[:2] if rows]
    return bool(found) and all(found)


def _named(cells: Sequence[str], kind: str, given: Mapping[str, str]) -> list[int]:
    """Return the columns of a kind; of those with usual names, the name of the kind goes first."""
    wanted = (_plain(given[kind]),) if kind in given else _USUAL[kind]
    return [number for number, cell in enumerate(cells) if _plain(cell) in wanted]


def _columns(table: Table, given: Mapping[str, str]) -> dict[str, int]:
    cells, columns = table.rows[0].cells, {}
    for kind in COLUMNS:
        found = _named(cells, kind, given)
        if len(found) > 1:
            names = " and ".join(repr(cells[number]) for number in found)
            raise UserError(
                f"{table.file}: {names} may be the {kind}; name one: "
                f"{option(f'columns.{kind}', 'NAME')}"
            )
        if found:
            columns[kind] = found[0]
        elif kind in given or kind in COLUMNS[:2]:
            name = given.get(kind, kind)
            raise UserError(
                f"{table.file}: no column {name!r} in its first line, "
                f"{table.separator.join(cells)!r:.120}{nearest(name, filter(None, cells))}; wanted "
                f"{','.join(COLUMNS)}; the last two may be missing; other names: "
                f"{option(f'columns.{kind}', 'NAME')}"
            )
    return columns


def _check_once(file: Path, paths: Sequence[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise UserError(f"{file}: {path} is listed twice; list each image once")
        seen.add(path)


def _plain(name: str) -> str:
    return name.strip().lower().translate(str.maketrans("", "", " _-"))
