"""Table of numbers on disk, filled row by row, that several processes can share."""

import fcntl
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_folder, load_json, save_json

_VALUES, _SUMS, _SHAPE = "values.f16", "sums.u32", "shape.json"
_REMEDY = "move the folder elsewhere, and it is created again"


class RowStore:
    """A table of float16 in a sparse file, with a checksum for every filled row.

    The checksum of a row (0 for an empty row) is written after its values, and no row is written
    twice: writers take turns. So a killed process leaves whole rows or none, and processes on one
    machine see one another's rows. A process compares the checksum when it first reads a row.

    Args:
        folder: Of the files; created with its parents if missing.
        rows: Number of rows.
        width: Numbers in a row.
        name: What the rows are, if a table of the same shape may have others: it is kept in the
            folder and is part of every checksum, so that tables cannot be exchanged.

    Raises:
        UserError: If the folder holds a table of another shape or name, is damaged, or does not fit
            on the disk.
    """

    def __init__(self, folder: Path, rows: int, width: int, *, name: str = "") -> None:
        self.folder, self.shape = folder, (rows, width)
        self._salt = zlib.crc32(name.encode())
        wanted = {"rows": rows, "width": width, **({"name": name} if name else {})}
        if not folder.exists():
            _create(folder, rows, width, wanted)
        shape = load_json(folder / _SHAPE, remedy=_REMEDY)
        if shape != wanted:
            found, asked = list(shape.values()), list(wanted.values())
            raise UserError(f"{folder}: holds a table of {found}, not {asked}; move it elsewhere")
        self._values = _mapped(folder / _VALUES, np.float16, (rows, width))
        self._sums = _mapped(folder / _SUMS, np.uint32, (rows,))
        self._checked = np.zeros(rows, dtype=bool)

    @property
    def filled(self) -> int:
        """The number of filled rows."""
        return int(np.count_nonzero(self._sums))

    def has(self, rows: np.ndarray) -> np.ndarray:
        """Return which of the rows are filled, bool [n]."""
        return self._sums[rows] != 0

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return filled rows, float16 [n, width].

        Raises:
            UserError: If one of them is damaged.
        """
        values = self._values[rows]
        new = np.flatnonzero(~self._checked[rows])
        numbers = rows[new]
        sums = self._sums[numbers].tolist()
        for place, row, wanted in zip(new.tolist(), numbers.tolist(), sums, strict=True):
            if wanted != self._sum_of(values[place], row):
                self._look_again(row)
                values[place] = self._values[row]
        self._checked[numbers] = True
        return values

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write values, float16 [n, width], to those of the rows that are empty.

        Raises:
            UserError: If the disk is full, or the values cannot be written.
        """
        try:
            with _opened(self.folder / _SUMS) as sums, _opened(self.folder / _VALUES) as table:
                with suppress(OSError):  # where files cannot be locked, two writers rarely collide
                    fcntl.flock(sums, fcntl.LOCK_EX)
                missing = np.flatnonzero(~self.has(rows)).tolist()
                # Not through mapped memory: on a full disk that kills the process.
                for place in missing:
                    _write(table, values[place].tobytes(), int(rows[place]) * values[place].nbytes)
                for place in missing:
                    row = int(rows[place])
                    _write(sums, np.uint32(self._sum_of(values[place], row)).tobytes(), 4 * row)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror or error}); make room, use a "
                "--work-dir on another disk, or leave trainer.teacher_cache out"
            ) from error

    def _sum_of(self, values: np.ndarray, row: int) -> int:
        """Return the checksum of a row with name and number, so that none is exchanged; never 0."""
        return zlib.crc32(values.data, (row ^ self._salt) & 0xFFFFFFFF) or 1

    def _look_again(self, row: int) -> None:
        """Reject a row with a wrong checksum, unless it is being written now."""
        time.sleep(0.01)
        if self._sums[row] != self._sum_of(self._values[row], row):
            raise UserError(
                f"{self.folder}: damaged (the checksum of row {row} does not match); {_REMEDY}"
            )


def table_bytes(rows: int, width: int) -> int:
    """Return the size of a full table on disk, in bytes."""
    return rows * (2 * width + 4)


def _mapped(path: Path, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    """Map a file for reading."""
    wanted = np.dtype(kind).itemsize * int(np.prod(shape))
    try:
        found = path.stat().st_size
        if found == wanted:
            return np.memmap(path, kind, "r", shape=shape)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}") from error
    raise UserError(f"{path}: damaged ({found} bytes instead of {wanted}); {_REMEDY}")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    while data:  # a nearly full disk takes a part and rejects the rest
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _create(folder: Path, rows: int, width: int, shape: Mapping[str, Any]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        needed, free = table_bytes(rows, width), shutil.disk_usage(folder.parent).free
        if needed > free:
            raise UserError(
                f"{folder}: a full table has {needed / 1e9:.2f} GB, but the disk has only "
                f"{free / 1e9:.2f} GB left; free some, or use a --work-dir on another disk"
            )
        with atomic_folder(folder) as temporary:
            for name, size in ((_VALUES, 2 * rows * width), (_SUMS, 4 * rows)):
                with (temporary / name).open("wb") as file:
                    file.truncate(size)  # sparse: uses space only where rows are written
            save_json(shape, temporary / _SHAPE)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror or error}); use a --work-dir on another "
            "disk, or leave trainer.teacher_cache out"
        ) from error
