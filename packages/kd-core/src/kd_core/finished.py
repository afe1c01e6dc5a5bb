"""A finished student's file: where it is, and what it says about itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_core.checkpoint import load_safetensors
from kd_core.errors import UserError, nearest

FILE = "student.safetensors"


def find_student(path: str | Path) -> Path:
    """Return the file of a student: `path` itself, or `student.safetensors` in the folder `path`.

    Raises:
        UserError: If there is none.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if (path / FILE).is_file():
            return path / FILE
        others = [str(file.parent) for file in path.glob(f"**/{FILE}")]
        hint = nearest("", others) or "; a run writes it when it is finished"
        raise UserError(f"{path} has no {FILE}{hint}")
    if not path.is_file():
        raise UserError(f"{path} is neither a run's folder nor a {FILE}")
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: wanted a run's folder or its {FILE}, since only that file says which network "
            "and classes its weights are of"
        )
    return path


def read_facts(file: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return what the file of a student says about itself.

    Args:
        file: The file.
        names: What a file of its task must say.

    Raises:
        UserError: If the file is damaged or says nothing of the kind.
    """
    _, metadata = load_safetensors(file)  # the checksum is of all that is in the file
    missing = [name for name in names if name not in metadata]
    if missing:
        raise UserError(
            f"{file} does not say its {', '.join(missing)}; name a file that a training tool of "
            "this task wrote"
        )
    return {name: json.loads(metadata[name]) for name in names}
