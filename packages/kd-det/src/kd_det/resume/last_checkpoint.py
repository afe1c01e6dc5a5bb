"""Detectron2's `last_checkpoint`, the name of a run's newest file, with a checksum beside it."""

import hashlib
from pathlib import Path

from kd_core.errors import UserError
from kd_core.files.checkpoint import save_text

_NAME, _SUM = "last_checkpoint", "last_checkpoint.sha256"


def write_last(folder: Path, name: str) -> None:
    """Write the name of the newest checkpoint.

    Detectron2 reads the whole file as a name, so the checksum is in a separate file. That first has
    the hash of the old name too: after a kill between two writes, one of the hashes fits.
    """
    path = folder / _NAME
    new, old = _hash_of(name.encode()), _hash_of(path.read_bytes() if path.is_file() else b"")
    save_text(f"{new}\n{old}\n", folder / _SUM)
    save_text(name, path)
    save_text(f"{new}\n", folder / _SUM)


def read_last(folder: Path) -> Path:
    """Return the newest checkpoint.

    Raises:
        UserError: If its name is damaged, or there is no such file.
    """
    path, sums = folder / _NAME, folder / _SUM
    text = path.read_bytes()
    if sums.is_file() and _hash_of(text).encode() not in sums.read_bytes().split():
        raise UserError(
            f"{path}: damaged (its checksum does not match); write the name of one of the folder's "
            f"checkpoints into it, and move {sums.name} elsewhere"
        )
    name = text.decode(errors="replace").strip()
    file = folder / name
    plain = name.isprintable() and len(name) < 250 and Path(name).name == name
    if not plain or not file.is_file():
        raise UserError(
            f"{path}: names {name!r:.60}, which is not a file of this folder; write the name of "
            f"one of its checkpoints into it, and move {sums.name} elsewhere"
        )
    return file


def _hash_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
