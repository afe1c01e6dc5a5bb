"""What a run left, as two runs are compared: bits of tensors, and scores, but no times."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fault_detection import ITERATIONS
from kd_core.files.torch_files import _HARMLESS
from safetensors import safe_open

TENSORS = ("last.pth", "best.pth", "model_final.pth")
"""Files of which the tensors count, not the seconds that are in them."""
CLOCKS = ("seconds", "images_per_second", "train_seconds", "peak_memory", "environment", "sha256")
"""Entries of results and logs that no two runs have in common; the last is a checksum of them."""
RECORDS = ("result.json", "summary.json", "table.json", "demo.json")
DETECTRON = "metrics.json"
OURS = ("student.pth", "neck.pth")

State = dict[str, str]
"""By path, a hash or a text of what is in the file."""


def state_of(folder: Path) -> State:
    """Read all that runs left below a folder, but nothing that says when or for how long.

    A file that cannot be read has its error as its state, so that it equals no other.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.name.startswith(".claim-"):
            continue  # a dead claim has no effect anywhere
        try:
            state = _state_of_file(path)
        except Exception as error:  # a damaged file may raise anything
            state = f"unreadable: {type(error).__name__}"
        if state is not None:
            found[path.relative_to(folder).as_posix()] = state
    return found


def difference(expected: State, found: State) -> str:
    """Return where two states differ first; "" if they are equal."""
    for path in sorted(expected.keys() | found.keys()):
        if path not in found:
            return f"{path} is missing"
        if path not in expected:
            return f"{path} was left over"
        if expected[path] != found[path]:
            return f"{path} differs ({found[path][:60]})"
    return ""


def _state_of_file(path: Path) -> str | None:
    if path.suffix == ".pth":
        wanted = path.name in (*TENSORS, *OURS) or path.parent.name in ("criteria", "peers")
        return _hash(_load(path)) if wanted else None
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            return _hash([file.metadata(), {name: file.get_tensor(name) for name in names}])
    if path.name in RECORDS:
        return json.dumps(_timeless(json.loads(path.read_text("utf-8"))), sort_keys=True)
    if path.name == "log.jsonl":
        lines = path.read_text("utf-8").splitlines()
        return json.dumps([_timeless(json.loads(line)) for line in lines], sort_keys=True)
    if path.name == DETECTRON:
        return json.dumps(_evaluations(path))
    if path.name == "table.md":
        return path.read_text("utf-8")
    # Hidden files are temporary: nothing of them may stay.
    return "hidden" if path.name.startswith(".") else None


def _load(path: Path) -> Any:
    with torch.serialization.safe_globals(_HARMLESS):
        return torch.load(path, map_location="cpu", weights_only=True)


def _hash(value: Any) -> str:
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()[:16]


def _feed(found: "hashlib._Hash", value: Any) -> None:
    """Hash tensors and texts inside a nested value, and the names of all; numbers may be times."""
    if isinstance(value, torch.Tensor):
        found.update(f"{value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, item in sorted(value.items(), key=lambda entry: str(entry[0])):
            found.update(str(key).encode())
            _feed(found, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(found, item)
    elif isinstance(value, str):
        found.update(value.encode())


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in CLOCKS}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _evaluations(path: Path) -> dict[str, Any]:
    """Return the scores of Detectron2's log by iteration, and the lines that are there twice."""
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    iterations = [record["iteration"] for record in records]
    found: dict[str, Any] = {"twice": [i for i in set(iterations) if iterations.count(i) > 1]}
    for record in records:
        if scores := {key: v for key, v in record.items() if key.startswith("bbox/")}:
            # It counts from 0, but the end of training is one iteration later.
            found[str(min(record["iteration"] + 1, ITERATIONS))] = scores
    return found
