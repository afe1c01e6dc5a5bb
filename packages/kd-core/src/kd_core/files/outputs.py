"""Files of a teacher's logits, one row an image: written by us, or by anybody."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from kd_core.errors import UserError
from kd_core.files.artifacts import NAMES, fact
from kd_core.files.checkpoint import atomic_path, load_safetensors
from kd_core.files.checksum import KEY, hash_of_tensors

KINDS = (".npy", ".npz", ".safetensors")
_LOOKED_AT = 1000  # rows


@dataclass(frozen=True)
class Outputs:
    """What a file holds.

    Args:
        logits: [N, C], float.
        classes: Names of the logits, if the file has them.
        data: Fingerprint of the images, if the file has it; see `SplitLoader.fingerprint`.
    """

    logits: Tensor
    classes: Sequence[str] | None = None
    data: str | None = None


def read_outputs(path: Path) -> Outputs:
    """Read logits from a `.npy`, a `.npz` (`logits`, perhaps `classes`) or a `.safetensors` file.

    Raises:
        UserError: If it is another file, or does not hold finite logits.
    """
    if path.suffix not in KINDS:
        raise UserError(f"{path}: wanted a file of logits, {', '.join(KINDS)}")
    found = _of_safetensors(path) if path.suffix == ".safetensors" else _of_numpy(path)
    if problem := _problem(found.logits, found.classes):
        raise UserError(f"{path}: wanted the logits [images, classes] of a teacher; {problem}")
    return found


def write_outputs(path: Path, outputs: Outputs) -> None:
    """Write a `.safetensors` file that `read_outputs` reads; atomically, with a checksum."""
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: logits are written as .safetensors; give it this ending")
    tensors = {"logits": outputs.logits.cpu().contiguous()}
    facts = {"classes": json.dumps(list(outputs.classes))} if outputs.classes else {}
    facts |= {"data": outputs.data} if outputs.data else {}
    facts[KEY] = hash_of_tensors(tensors, facts)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=facts)


def _of_safetensors(path: Path) -> Outputs:
    tensors, metadata = load_safetensors(path)
    logits = _one(path, tensors)
    classes = metadata.get("classes")
    names = None if classes is None else fact(f"{path}: classes", classes, NAMES)
    return Outputs(logits, names, metadata.get("data"))


def _of_numpy(path: Path) -> Outputs:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return Outputs(_tensor(path, loaded))
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged, or not a file of arrays ({error!s:.100})") from error
    names = arrays.pop("classes", None)
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise UserError(f"{path}: `classes` must be an array of texts, not of {names.dtype}")
    classes = None if names is None else [str(name) for name in names]
    return Outputs(_tensor(path, _one(path, arrays)), classes)


def _one(path: Path, arrays: Mapping[str, Any]) -> Any:
    """Return what is named `logits`, or the only entry."""
    if "logits" in arrays or len(arrays) == 1:
        return arrays.get("logits", next(iter(arrays.values())))
    raise UserError(f"{path}: holds {', '.join(arrays) or 'nothing'}; wanted an entry `logits`")


def _tensor(path: Path, array: np.ndarray) -> Tensor:
    if array.dtype.kind != "f":
        raise UserError(f"{path}: wanted logits, real numbers, but it holds {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def _problem(logits: Tensor, classes: Sequence[str] | None) -> str:
    """Return what is wrong with logits; "" if nothing is."""
    if logits.dim() != 2 or not logits.numel():
        return f"it holds {list(logits.shape)}"
    if not logits.is_floating_point():
        return f"it holds {logits.dtype}"
    if not logits.isfinite().all():
        return "some are not finite"
    if classes is not None and len(classes) != logits.shape[1]:
        return f"it has {len(classes)} names for {logits.shape[1]} columns"
    few = logits[:_LOOKED_AT].double()
    if logits.shape[1] > 1 and few.min() >= 0 and (few.sum(1) - 1).abs().max() < 1e-2:
        return "these are probabilities, each row adds up to 1; store their logarithms"
    return ""
