"""Sets that are named by one text: a folder, a CSV file, or a public set and its root."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_core.errors import UserError, nearest

from kd_reid.data.folders import read_splits
from kd_reid.data.named import OPTIONS, read_named
from kd_reid.data.reading import Reading
from kd_reid.data.records import Splits, without_cameras


def public_set(source: str) -> tuple[str, str] | None:
    """Return the name and root of a public set that a text names, `msmt17:data`; else None.

    Raises:
        UserError: If there is no set of this name, and no such file or folder.
    """
    name, colon, root = source.partition(":")
    if not colon or Path(source).expanduser().exists() or len(name) == 1:  # a Windows drive
        return None
    if name not in OPTIONS:
        raise UserError(
            f"{source}: there is no such folder or file, and no public set {name!r}"
            f"{nearest(name, OPTIONS)}"
        )
    return name, root or "data"


def read_source(
    source: str,
    *,
    train_fraction: float = 0.0,
    seed: int = 0,
    said: Sequence[str] = (),
    **reading: Any,
) -> Splits:
    """Read a set that a text names.

    Args:
        source: A folder or a file of `read_set`, or `NAME:ROOT` of `read_named`.
        train_fraction: Share of the identities to train on, of a set without parts.
        seed: Chooses them.
        said: See `read_splits`.
        reading: What the user says of the set, see `Reading`.

    Raises:
        UserError: If it cannot be read.
    """
    public = public_set(source)
    if public is None:
        return read_splits(source, train_fraction=train_fraction, seed=seed, said=said, **reading)
    known = Reading(**reading)
    known.refuse(Path(source), "a public set is known", "camera", "identity", "parts", "columns")
    found = read_named(*public)
    return without_cameras(found) if known.same_camera else found
