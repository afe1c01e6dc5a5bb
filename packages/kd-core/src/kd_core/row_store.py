"""Rows of numbers on disk, filled a few at a time, that several processes can share."""

import json
import shutil
from pathlib import Path

import numpy as np

from kd_core.checkpoint import atomic_folder
from kd_core.errors import UserError

_VALUES, _FILLED, _SHAPE = "values.f16", "filled.u8", "shape.json"


class RowStore:
    """A table of float16 in a sparse file, with a mark for every row that is there.

    A row is marked only after its values were written through to the disk, so that what a killed
    process leaves is never taken for whole. Processes on one machine see one another's rows; two
    that write the same row write the same values.

    Args:
        folder: Of the files; made if need be. Its parent is made too.
        rows: Number of rows.
        width: Numbers in a row.

    Raises:
        UserError: If the folder holds a table of another shape, or the disk has no room for it.
    """

    def __init__(self, folder: Path, rows: int, width: int) -> None:
        self.folder, self.shape = folder, (rows, width)
        if not folder.exists():
            _create(folder, rows, width)
        shape = json.loads((folder / _SHAPE).read_text(encoding="utf-8"))
        if shape != [rows, width]:
            raise UserError(f"{folder}: holds a table of {shape}, not {[rows, width]}; remove it")
        self._values = np.memmap(folder / _VALUES, np.float16, "r+", shape=(rows, width))
        self._filled = np.memmap(folder / _FILLED, np.uint8, "r+", shape=(rows,))
        self._written: list[np.ndarray] = []

    @property
    def filled(self) -> int:
        """The number of rows that are there."""
        return int(np.count_nonzero(self._filled))

    def has(self, rows: np.ndarray) -> np.ndarray:
        """Tell which of the rows are there, bool [n]."""
        return self._filled[rows] != 0

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return rows, float16 [n, width], whether or not they are there."""
        return self._values[rows]

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Put values, float16 [n, width], into rows; `commit` lets others see them."""
        self._values[rows] = values
        self._written.append(rows)

    def commit(self) -> None:
        """Write through to the disk, then mark what was written."""
        if not self._written:
            return
        self._values.flush()
        self._filled[np.concatenate(self._written)] = 1
        self._filled.flush()
        self._written.clear()


def table_bytes(rows: int, width: int) -> int:
    """Return how large a table is on disk when it is full."""
    return rows * (2 * width + 1)


def _create(folder: Path, rows: int, width: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed, free = table_bytes(rows, width), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise UserError(
            f"{folder}: a full table has {needed / 1e9:.2f} GB, but the disk has only "
            f"{free / 1e9:.2f} GB left; free some, or use a --work-dir on another disk"
        )
    with atomic_folder(folder) as temporary:
        for name, size in ((_VALUES, 2 * rows * width), (_FILLED, rows)):
            with (temporary / name).open("wb") as file:
                file.truncate(size)  # sparse: takes room only where rows are written
        (temporary / _SHAPE).write_text(json.dumps([rows, width]), encoding="utf-8")
