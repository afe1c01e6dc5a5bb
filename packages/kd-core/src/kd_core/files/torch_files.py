"""Read files of `torch.save` from anybody, without running code in them."""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_core.errors import UserError
from kd_core.files.checksum import DamagedError, is_sealed


class _HistoryBuffer:
    """Replaces mmengine's log of a value, which is beside the weights in its checkpoints."""


def _no_attribute(*_: object) -> None:
    """Replace `getattr`, by which such a log names its own functions."""


# RepDistiller's files contain their options, others NumPy values such as the best accuracy.
_array, _scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")),
    (_HistoryBuffer, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_no_attribute, "builtins.getattr"),
]
for _package in ("numpy.core", "numpy._core"):  # NumPy 2 renamed it
    _HARMLESS += [
        (_array, f"{_package}.multiarray._reconstruct"),
        (_scalar, f"{_package}.multiarray.scalar"),
    ]


def read_torch_file(path: Path) -> Any:
    """Return what a file of `torch.save` holds, on the CPU; nothing in it is imported or called.

    Raises:
        UserError: If it is damaged, or holds anything but plain data.
    """
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
