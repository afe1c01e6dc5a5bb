"""TapStore: what one tap of a teacher gave for every image of every epoch, in files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_folder, load_json, save_json
from kd_core.files.fingerprint import fingerprint
from kd_core.files.row_store import RowStore, table_bytes
from kd_core.runtime.system_errors import cannot_write
from kd_core.training.targets.forms import Form

_IDENTITY = "identity.json"
_REMEDY = "move the folder elsewhere, and it is filled again"
_MOST = 3  # differences that a message names


class TapStore:
    """A folder with a table for every epoch, whose rows are the places of the epoch's order.

    `identity.json` says all that the rows depend on, and nothing of where the folder lies, so it
    can be copied. Tables are made when an epoch is first wanted, and are filled and read by
    any number of processes, see `RowStore`.

    Args:
        folder: Of the store; created if it is missing.
        identity: All that the rows depend on, by name.
        form: How values become rows.
        rows: Places of an epoch.

    Raises:
        UserError: If the folder has rows with another identity, or it cannot be read or created.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str], form: Form, rows: int) -> None:
        self.folder, self.identity, self.form, self.rows = folder, dict(identity), form, rows
        if not folder.exists():
            self._create()
        if found := differences(identity_in(folder), identity):
            raise UserError(
                f"{folder}: its targets are not those of this run: {listed(found)}; name another "
                "folder, or set trainer.teacher_cache=True, which keeps one for each"
            )
        self._key = fingerprint(*(f"{name}={identity[name]}" for name in sorted(identity)))
        self._tables: dict[int, RowStore] = {}  # the one that was used last

    @property
    def epoch_bytes(self) -> int:
        """The size of one epoch in bytes."""
        return table_bytes(self.rows, self.form.width)

    def bytes_there(self) -> int:
        """Return the bytes that all epochs take on the disk now."""
        return sum(
            getattr(path.stat(), "st_blocks", 0) * 512 for path in self.folder.glob("epoch-*/*.*")
        )

    def has(self, epoch: int, rows: np.ndarray) -> np.ndarray:
        """Return which of an epoch's rows are there, bool [n]."""
        return self._of(epoch).has(rows)

    def read(self, epoch: int, rows: np.ndarray) -> np.ndarray:
        """Return rows of an epoch that are there, float16 [n, width].

        Raises:
            UserError: If one is damaged.
        """
        return self._of(epoch).read(rows)

    def write(self, epoch: int, rows: np.ndarray, value: Tensor) -> None:
        """Write a tap's values, [V * n, ...], to those of the rows that are not there yet."""
        self._of(epoch).write(rows, self.form.encode(value))

    def _of(self, epoch: int) -> RowStore:
        if epoch not in self._tables:
            folder = self.folder / f"epoch-{epoch:05}"
            name = f"{self._key} epoch {epoch}"
            self._tables = {epoch: RowStore(folder, self.rows, self.form.width, name=name)}
        return self._tables[epoch]

    def _create(self) -> None:
        try:
            with atomic_folder(self.folder) as temporary:
                save_json({"identity": self.identity}, temporary / _IDENTITY)
        except OSError as error:
            raise cannot_write(self.folder, error) or error from error


def identity_in(folder: Path) -> dict[str, Any]:
    """Return what the rows in a folder depend on.

    Raises:
        UserError: If it does not say so, or is damaged.
    """
    if folder.is_dir() and not (folder / _IDENTITY).exists():
        raise UserError(
            f"{folder} has no {_IDENTITY}, so it does not hold stored targets; name another folder"
        )
    identity = load_json(folder / _IDENTITY, remedy=_REMEDY).get("identity")
    if not isinstance(identity, dict):
        raise UserError(f"{folder / _IDENTITY}: damaged (no identity in it); {_REMEDY}")
    return identity


def differences(there: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """Return what differs between two identitys, as texts."""
    return [
        f"{name} is {there.get(name, 'not set')!s:.100} there and "
        f"{here.get(name, 'not set')!s:.100} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]


def listed(found: list[str]) -> str:
    """Return the first differences, and how many more there are."""
    more = f" (and {len(found) - _MOST} more)" if len(found) > _MOST else ""
    return "; ".join(found[:_MOST]) + more


def name_of(teacher: str, tap: str) -> str:
    """Return a name for the folder of a teacher's tap."""
    plain = re.sub(r"[^\w.@-]+", "_", f"{teacher}-{tap}")[:60]
    return f"{plain}-{fingerprint(teacher, tap)[:6]}"
