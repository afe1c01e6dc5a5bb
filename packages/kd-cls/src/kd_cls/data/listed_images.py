"""The image files of a set without labels that are in a list, each once."""

from collections.abc import Sequence
from pathlib import Path

from kd_core.data.image_listing import LeftOut, is_image
from kd_core.data.unlabelled.found_images import each_once
from kd_core.errors import UserError
from kd_core.files.tables import Row, read_table

from kd_cls.data.list_columns import Entry, columns_named
from kd_cls.data.list_files import found_files


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
    found = each_once([image.path for image in listed], left_out)
    left_out.print(csv)
    return found


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
