"""Embeddings of a folder in files: `.npy`, the names in `.csv`, and what made them in `.json`."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kd_core.errors import UserError
from kd_core.files.artifacts import MEAN, SIZE, STD
from kd_core.files.checkpoint import atomic_path, load_json, save_json, save_text
from kd_core.files.fingerprint import hash_of_file
from torch import Tensor

from kd_reid.lookup.identity import Maker
from kd_reid.measuring.saved import read_saved

SUFFIX = ".npy"
_HASHED = (SUFFIX, ".csv")
_REMEDY = "embed the folder again with reid_embed"


@dataclass(frozen=True)
class Stored:
    """Embeddings of pictures.

    Args:
        rows: Embeddings, [N, D].
        files: Paths of the pictures, in the same order.
        maker: What made them.
    """

    rows: Tensor
    files: list[str]
    maker: Maker


def files_of(path: Path) -> list[Path]:
    """Return the three files of embeddings."""
    return [path.with_suffix(suffix) for suffix in (*_HASHED, ".json")]


def write_stored(path: Path, stored: Stored, names: Sequence[str], folder: str) -> None:
    """Write embeddings; the last file says that the others are whole.

    Args:
        path: The `.npy` file; `tools/reid_evaluate.py` reads it and the `.csv` file.
        stored: The embeddings.
        names: Of the pictures, from the name of the folder on.
        folder: Where the pictures are.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, stored.rows.cpu().numpy(), allow_pickle=False)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("path",), *((name,) for name in names)])
    save_text(text.getvalue(), path.with_suffix(".csv"))
    facts = {
        "folder": os.path.abspath(folder),
        "images": len(names),
        "width": stored.rows.shape[1],
        "made_by": asdict(stored.maker),
        "files": {suffix: hash_of_file(path.with_suffix(suffix)) for suffix in _HASHED},
    }
    save_json(facts, path.with_suffix(".json"))


def read_stored(path: Path, images: str | None = None) -> Stored:
    """Read what `write_stored` wrote.

    Args:
        path: The `.npy` file.
        images: Where the embedded folder is now; None takes where it was.

    Raises:
        UserError: If a file is missing or damaged, or the folder is not there.
    """
    beside = path.with_suffix(".json")
    if path.is_file() and not beside.exists():
        raise UserError(f"{path}: has no {beside.name} that says what made it; {_REMEDY}")
    facts = load_json(beside, remedy=_REMEDY)
    maker, folder = _maker(beside, facts), facts["folder"]
    for suffix in _HASHED:
        file = path.with_suffix(suffix)
        if not file.is_file() or hash_of_file(file) != facts["files"][suffix]:
            raise UserError(f"{file}: is not the file that {beside.name} is of; {_REMEDY}")
    saved = read_saved(str(path))
    names = saved.columns["path"]
    place = folder if images is None else images
    if not Path(place).is_dir():
        raise UserError(
            f"{path}: the folder {place} of its pictures is not there; --images FOLDER says where "
            "it is now"
        )
    start = len(os.path.basename(folder)) + 1 if os.path.basename(folder) else 0
    return Stored(saved.rows, [os.path.join(place, name[start:]) for name in names], maker)


def _maker(file: Path, facts: dict[str, Any]) -> Maker:
    """Return the checked maker in the facts."""
    hashes = facts.get("files")
    known = isinstance(facts.get("folder"), str) and isinstance(hashes, dict)
    if not (known and set(hashes or ()) == set(_HASHED) and _is_maker(facts.get("made_by"))):
        raise UserError(f"{file}: not a file that reid_embed wrote; {_REMEDY}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in facts["made_by"].items()
    }
    return Maker(**values)


def _is_maker(value: Any) -> bool:
    checks = {
        "network": lambda text: isinstance(text, str),
        "image_size": lambda size: isinstance(size, list) and SIZE[1](size),
        "mean": MEAN[1],
        "std": STD[1],
        "flip": lambda flag: isinstance(flag, bool),
        "normalised": lambda flag: isinstance(flag, bool),
    }
    return (
        isinstance(value, dict)
        and value.keys() == checks.keys()
        and all(check(value[name]) for name, check in checks.items())
    )
