"""Tables in text files, as spreadsheets and programs write them: CSV with any usual separator."""

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from kd_core.errors import UserError, nearest

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_EXCELS = re.compile(r"sep=(.)")  # a first line that names the separator


class Row(NamedTuple):
    """A line of a table: its number in the file, and its cells without spaces around them."""

    line: int
    cells: tuple[str, ...]


class Table(NamedTuple):
    """A table: its separator and all rows that are not empty, the first line among them."""

    file: Path
    separator: str
    rows: list[Row]

    def place(self, row: Row) -> str:
        """Return where a row is, for messages."""
        return f"{self.file}:{row.line}"


def read_table(file: str | os.PathLike[str], fits: Callable[[list[Row]], bool]) -> Table:
    """Read a table in UTF-8 or, with its mark at the start, UTF-16.

    Args:
        file: Cells may be in double quotes. Lines end in any way; empty ones are passed over.
        fits: Whether rows are a table of the wanted kind; the separator is the one whose rows are.

    Raises:
        UserError: If the file is missing, is not text, or no separator or several give such rows.
    """
    path = Path(file)
    text = _text(path)
    named = _EXCELS.match(text)
    separators = [named[1]] if named else list(SEPARATORS)
    start = 1 if named else 0
    tables = {sep: _rows(path, text, sep, start) for sep in separators}
    if not any(tables.values()):
        raise UserError(f"{path}: is empty; wanted a line for each image")
    found = [sep for sep, rows in tables.items() if fits(rows)]
    if len(found) > 1:
        names = " and by ".join(SEPARATORS.get(sep, repr(sep)) for sep in found)
        raise UserError(f"{path}: can be separated by {names}; write it with one of them alone")
    # Of one that does not fit, the separator with the most cells in the first line.
    best = max(tables, key=lambda sep: len(tables[sep][0].cells) if tables[sep] else 0)
    separator = found[0] if found else best
    return Table(path, separator, tables[separator])


def _text(path: Path) -> str:
    if not path.is_file():
        others = path.parent.iterdir() if path.parent.is_dir() else ()
        near = [other.name for other in others if other.suffix == path.suffix]
        raise UserError(f"{path}: there is no such file{nearest(path.name, near)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    is_wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: is not text in UTF-8 ({error.reason}); save it as CSV UTF-8"
        ) from error


def _rows(path: Path, text: str, separator: str, start: int) -> list[Row]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows = []
    try:
        for cells in lines:
            stripped = tuple(cell.strip() for cell in cells)
            if any(stripped) and lines.line_num > start:
                rows.append(Row(lines.line_num, stripped))
    except csv.Error as error:
        raise UserError(f"{path}:{lines.line_num}: is not CSV ({error})") from error
    return rows


def cut_to(table: Table, row: Row, width: int) -> Row:
    """Return a row of so many cells; empty ones at its end, as spreadsheets write them, are cut.

    Raises:
        UserError: If it has fewer cells, or others beyond.
    """
    if len(row.cells) < width or any(row.cells[width:]):
        raise UserError(
            f"{table.place(row)}: has {len(row.cells)} cells, wanted {width}; put a cell with a "
            f"separator in it into double quotes, got {_shown(row.cells)}"
        )
    return Row(row.line, row.cells[:width])


def _shown(cells: Sequence[str]) -> str:
    return f"{list(cells)!r:.120}"
