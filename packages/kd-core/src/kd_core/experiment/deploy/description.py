"""The JSON beside an exported file: what the file takes and gives, and of which file it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core.files.checkpoint import save_json
from kd_core.files.fingerprint import hash_of_file


def place_of(file: Path) -> Path:
    """Return the path of the JSON of an exported file."""
    return file.with_name(f"{file.name}.json")


def describe(file: Path, content: Mapping[str, Any]) -> Path:
    """Write what an exported file takes and gives beside it, with its hash; return the path.

    Args:
        file: The file, which is there already.
        content: What it takes and gives.
    """
    place = place_of(file)
    facts = {"file": file.name, "file_sha256": hash_of_file(file), "bytes": file.stat().st_size}
    save_json({**facts, **content}, place)
    return place
