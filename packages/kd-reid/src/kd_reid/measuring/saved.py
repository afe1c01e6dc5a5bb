"""Features in a file: `.npy` with a row for each image, and a CSV file that says whose they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

import numpy as np
import torch
from kd_core.errors import UserError, nearest
from kd_core.files.tables import Row, Table, cut_to, read_table
from torch import Tensor

from kd_reid.data.records import Record
from kd_reid.evaluation import Features
from kd_reid.measuring.targets import Images, Searching, require_searchable

COLUMNS = ("path", "identity", "camera", "split")
_PARTS = ("query", "gallery")


@dataclass(frozen=True)
class Saved:
    """Features and what is known of their images.

    Args:
        file: The `.npy` file.
        rows: Features, [N, D].
        columns: Of the CSV file beside it, each with a text for every row.
    """

    file: Path
    rows: Tensor
    columns: dict[str, list[str]]

    def searching(self, *, same_camera: bool) -> tuple[Searching, Features]:
        """Return the search that the columns describe.

        Raises:
            UserError: If identity or split is not among them, or nobody can be found.
        """
        for column in ("identity", "split"):
            if column not in self.columns:
                raise UserError(
                    f"{_csv_of(self.file)}: has no column {column!r}, so it does not say who is "
                    "searched for; add it, or name the set with --data"
                )
        if wrong := sorted(set(self.columns["split"]) - set(_PARTS)):
            raise UserError(
                f"{_csv_of(self.file)}: split is query or gallery, got {wrong[0]!r:.40}"
            )
        count = len(self.rows)
        cameras: Sequence[str | None] = self.columns.get("camera", [])
        cameras = [None] * count if same_camera or not cameras else cameras
        paths = self.columns.get("path", [""] * count)
        records = list(map(Record, paths, self.columns["identity"], cameras))
        places = {
            part: [n for n, split in enumerate(self.columns["split"]) if split == part]
            for part in _PARTS
        }
        query, gallery = (Images([records[n] for n in places[part]]) for part in _PARTS)
        searching = Searching(str(self.file), query, gallery)
        require_searchable(searching)
        return searching, Features(*(self.rows[places[part]] for part in _PARTS))

    def features_of(self, query: Sequence[Record], gallery: Sequence[Record]) -> Features:
        """Return the features of a set's images, which are found by their paths.

        Raises:
            UserError: If an image has no row, or several.
        """
        if "path" not in self.columns:
            raise UserError(
                f"{_csv_of(self.file)}: has no column 'path', by which the images of --data are "
                "found; add it"
            )
        known: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for row, text in enumerate(self.columns["path"]):
            parts = _parts(text)
            known.setdefault(parts[-1], []).append((parts, row))
        places = [[self._row(record.path, known) for record in side] for side in (query, gallery)]
        return Features(*(self.rows[side] for side in places))

    def _row(self, path: str, known: dict[str, list[tuple[tuple[str, ...], int]]]) -> int:
        whole = Path(path).expanduser().absolute().parts
        fitting = [
            (len(parts), row)
            for parts, row in known.get(whole[-1], ())
            if whole[-len(parts) :] == parts
        ]
        longest = max((length for length, _ in fitting), default=0)
        rows = [row for length, row in fitting if length == longest]
        if len(rows) != 1:
            count = "several rows" if rows else "no row"
            raise UserError(
                f"{_csv_of(self.file)}: has {count} for {path}; its column path has the end of "
                "each image's path, once"
            )
        return rows[0]


def read_saved(path: str) -> Saved:
    """Read features and the CSV file of the same name beside them.

    Raises:
        UserError: If a file is missing or damaged, or the two do not belong together.
    """
    file = Path(path).expanduser()
    rows = _read_array(file)
    columns = _read_columns(file)
    lengths = {len(values) for values in columns.values()}
    if lengths != {len(rows)}:
        raise UserError(
            f"{file}: has {len(rows):,} features, and {_csv_of(file).name} {max(lengths):,} rows; "
            "each feature has one row, in order"
        )
    return Saved(file, rows, columns)


def _read_array(file: Path) -> Tensor:
    try:
        array = np.load(file, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, MemoryError, SyntaxError, OverflowError, TypeError) as error:
        raise UserError(f"{file}: not an array that np.save wrote ({error})") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or not array.size:
        shape = list(getattr(array, "shape", ()))
        raise UserError(f"{file}: wanted features [images, width], got {shape}")
    if array.dtype.kind != "f":
        raise UserError(f"{file}: wanted features as floats, got {array.dtype}")
    rows = torch.from_numpy(array.astype(np.float32))
    if not all(bound.isfinite() for bound in rows.aminmax()):
        raise UserError(f"{file}: has features that are not finite; make it again")
    return rows


def _csv_of(file: Path) -> Path:
    return file.with_suffix(".csv")


def _read_columns(file: Path) -> dict[str, list[str]]:
    def fits(rows: list[Row]) -> bool:
        head = {cell.lower() for cell in rows[0].cells} if rows else set()
        return len(head) > 1 and head <= set(COLUMNS)  # one column has no separator

    beside = _csv_of(file)
    if not beside.is_file():
        raise UserError(
            f"{beside}: there is no such file; it says of each row of {file.name} which image it "
            f"is, in columns {', '.join(COLUMNS)}"
        )
    table = read_table(beside, fits)
    names = [name.lower() for name in table.rows[0].cells] if table.rows else []
    for name in names:
        if name not in COLUMNS:
            raise UserError(f"{beside}: column {name!r:.40} is not known{nearest(name, COLUMNS)}")
    if len(set(names)) < len(names) or not names:
        raise UserError(f"{beside}: wanted columns {', '.join(COLUMNS)}, each once, got {names}")
    return _filled(table, names)


def _filled(table: Table, names: list[str]) -> dict[str, list[str]]:
    rows = [cut_to(table, row, len(names)) for row in table.rows[1:]]
    for row in rows:
        if empty := [name for name, cell in zip(names, row.cells, strict=True) if not cell]:
            raise UserError(f"{table.place(row)}: {empty[0]} is empty; fill it, or leave it out")
    return {name: [row.cells[n] for row in rows] for n, name in enumerate(names)}


def _parts(text: str) -> tuple[str, ...]:
    path: PurePath = PureWindowsPath(text) if "\\" in text else PurePath(text)
    return tuple(part for part in path.parts if part not in (".", ""))
