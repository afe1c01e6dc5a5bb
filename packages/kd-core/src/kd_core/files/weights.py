"""Read weight files of any common tool without running code in them."""

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_core.errors import UserError, nearest
from kd_core.files.checkpoint import load_safetensors
from kd_core.files.checksum import DamagedError, is_sealed
from kd_core.files.mismatch import Mismatch, few
from kd_core.files.sound_weights import unsound

_WRAPPERS = ("model", "state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and DDP, of torch.compile

# RepDistiller's files contain their options, others a NumPy number such as the best accuracy.
# NumPy 2 renamed the module of scalars in a pickle.
_scalar = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file to the CPU, by name.

    Reads `.safetensors`, and under any other name a file of `torch.save`: a state dict, or a dict
    that holds one as `model`, `state_dict` or `net` (mdistiller, RepDistiller, torchvision, timm,
    Detectron2). From a checkpoint of our own trainer it reads the student. Prefixes that
    DataParallel, DDP and torch.compile put before every name are removed.

    Raises:
        UserError: If there is no such file, if it is damaged or holds anything but plain data, or
            if no state dict is in it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"no weights file {str(path)!r}{_files_nearby(path)}")
    contents = load_safetensors(path)[0] if path.suffix == ".safetensors" else _read_pickle(path)
    state = _unwrap(contents)
    _require_tensors(state, path)
    return _without_prefixes({str(name): value.detach() for name, value in state.items()})


def load_weights(
    module: nn.Module, path: str | Path, *, strict: bool = True, parts: bool = False
) -> None:
    """Load a weights file into a module; see `read_state_dict` for the formats.

    Nothing is loaded unless everything fits. A BatchNorm's `num_batches_tracked` may be missing:
    old files lack it.

    Args:
        module: Network or criterion, on any device.
        path: The file.
        strict: Whether names must agree. Otherwise missing and unexpected ones are ignored, but
            shapes must agree, and at least one name.
        parts: Whether the file may lack whole submodules, which then stay unchanged.

    Raises:
        UserError: If the file cannot be read or does not fit.
    """
    state, own = read_state_dict(path), module.state_dict()
    wrong = Mismatch.between(state, _parts_in(state, own) if parts else own)
    nothing_fits = len(wrong.unexpected) == len(state)
    if wrong.reshaped or nothing_fits or (strict and str(wrong)):
        raise UserError(
            f"{path}: does not fit {type(module).__name__}: {wrong}{_guess(wrong)}; "
            f"build the network that the file was made for"
        )
    check_values(path, state, own)
    module.load_state_dict(state, strict=strict and not parts)


def check_values(path: str | Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Reject tensors of a file that are not finite, or of another kind than the network's.

    Raises:
        UserError: Naming the first of them.
    """
    if wrong := unsound(state, own):
        raise UserError(f"{path}: {wrong}; name another file, or save its weights again")


def _require_tensors(state: Any, path: Path) -> None:
    """Reject anything but a state dict of tensors that have shapes."""
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path}: wanted a state dict, got {type(state).__name__} {state!r:.80}")
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f"{path}: wanted a state dict (tensors by name), or one under "
            f"{', '.join(map(repr, _WRAPPERS))}, but some entries are not tensors: {few(others)}; "
            f"save the state dict alone"
        )
    if nested := next((name for name, value in state.items() if value.is_nested), None):
        raise UserError(f"{path}: {nested} is a nested tensor, which has no shape; save it dense")


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file, torch.serialization.safe_globals(_HARMLESS):
            is_sealed(file)  # files of other programs have no checksum
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except DamagedError as error:
        raise UserError(
            f"{path}: damaged ({error}); get it again, name another file, or train again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{path}: {_why_unreadable(path, error)}") from error


def _why_unreadable(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            return "a Git LFS pointer, not the weights; fetch the file itself with git lfs pull"
    forbidden = re.search(r"GLOBAL (\S+)", str(error))
    if forbidden:
        return (
            f"holds a {forbidden[1]}, which cannot be read safely: loading it may run code of the "
            f"file's author. If you trust the author, read the file once with "
            f"torch.load(path, weights_only=False) and torch.save its state dict alone"
        )
    return f"damaged, or not written by torch.save ({type(error).__name__})"


def _unwrap(contents: Any) -> Any:
    if isinstance(contents, Mapping):
        for key in _WRAPPERS:  # first: a distilled detector's file has both
            if isinstance(contents.get(key), Mapping):
                return _unwrap(contents[key])
        if isinstance(contents.get("distiller"), Mapping):
            return _student(contents)
    return contents


def _student(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the student's network from a checkpoint of the trainer, or its average."""
    if checkpoint.get("average"):
        return checkpoint["average"]
    prefix = "student.network."
    state = checkpoint["distiller"].items()
    return {name.removeprefix(prefix): v for name, v in state if name.startswith(prefix)}


def _files_nearby(path: Path) -> str:
    if path.is_dir():
        return f", it is a folder{nearest('', _names(path))}"
    if not path.parent.is_dir():
        return f"; the folder {str(path.parent)!r} does not exist"
    return nearest(path.name, _names(path.parent))


def _names(folder: Path) -> Iterable[str]:
    return (file.name for file in folder.iterdir() if file.is_file())


def _parts_in(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's tensors, without the submodules that a file lacks."""
    present = {name.partition(".")[0] for name in state}
    return {name: value for name, value in own.items() if name.partition(".")[0] in present}


def _guess(wrong: Mismatch) -> str:
    """Return what may be the matter where all tensors that do not fit are of one module."""
    modules = {name.rpartition(".")[0] for name in wrong.reshaped}
    alone = not wrong.missing and not wrong.unexpected and len(modules) == 1
    return " (other number of classes?)" if alone else ""
