"""Read and check the results of a finished run: `result.json` and `log.jsonl`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.files.checksum import hash_of_tensors
from kd_core.files.fingerprint import hash_of_file
from kd_core.training.resuming.forms import is_number

FILE = "result.json"
"""The file that a run writes last; with it, all its products are there."""

REMEDY = f"move {FILE} elsewhere, and --resume creates it again from the run's last checkpoint"


def read_result(folder: Path) -> dict[str, Any]:
    """Return the result of a finished run, see `kd_core.experiment.run.run`.

    Raises:
        UserError: If there is none, or it is damaged: not JSON, other keys, or numbers not finite.
    """
    file = folder / FILE
    if not file.is_file():
        raise UserError(f"{folder} has no {FILE}, which a run writes at its end")
    result = checkpoint.load_json(file, remedy=REMEDY)
    if problem := _problem(result):
        raise UserError(f"{file}: damaged ({problem}); {REMEDY}")
    return result


def hashes_of(files: Iterable[Path], folder: Path) -> dict[str, str]:
    """Return the hash of every file, by its path in a folder; for `check_products`."""
    return {file.relative_to(folder).as_posix(): _hash_of(file) for file in files}


def check_products(folder: Path, result: Mapping[str, Any], remedy: str) -> None:
    """Reject a folder whose products are not those that its run wrote.

    Args:
        folder: Of a finished run.
        result: Its result; `products` has the hashes.
        remedy: What the user can do.

    Raises:
        UserError: If a product is missing or different.
    """
    for name, known in result.get("products", {}).items():
        if not (folder / name).is_file():
            raise UserError(f"{folder} is finished, but its {name} is missing; {remedy}")
        if _hash_of(folder / name) != known:
            raise UserError(f"{folder / name} is not the file that its run wrote; {remedy}")


def _hash_of(file: Path) -> str:
    if file.suffix == ".safetensors":  # the order of its metadata changes with each writing
        return hash_of_tensors(*checkpoint.load_safetensors(file))
    return hash_of_file(file)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run's epochs.

    Raises:
        UserError: If there are none, or a line is damaged.
    """
    file = folder / "log.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}); {REMEDY}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not is_number(record.get("epoch")):
            raise UserError(f"{file}, line {number}: damaged, wanted an epoch's record; {REMEDY}")
        records.append(record)
    if not records:
        raise UserError(f"{file}: damaged (it is empty); {REMEDY}")
    return records


def _problem(result: dict[str, Any]) -> str | None:
    """Return what is wrong with a result, or None."""
    metric = result.get("metric")
    if not isinstance(metric, str):
        return "`metric` is not a name"
    for which in ("last", "best"):
        scores = result.get(which)
        if not isinstance(scores, dict) or metric not in scores:
            return f"`{which}` has no {metric!r}"
        numbers = {key: value for key, value in scores.items() if key != "chosen_on"}
        if wrong := next((key for key, v in numbers.items() if not is_number(v)), None):
            return f"`{which}.{wrong}` is {numbers[wrong]!r:.40}, wanted a finite number"
    if not isinstance(result["best"].get("chosen_on"), str):
        return "`best.chosen_on` is not a text"
    for key in ("student_parameters", "train_seconds"):
        if not is_number(result.get(key)):
            return f"`{key}` is {result.get(key)!r:.40}, wanted a finite number"
    return None
