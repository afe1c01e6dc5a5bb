"""Files that are whole or absent: atomic writes, and safe reading."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from kd_core.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, which takes its place only if the block succeeds.

    Where another process was faster, its folder stays and ours goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's folder is its owner's alone
        temporary.rename(path)
    except OSError:
        if not path.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save(value: Any, path: Path) -> None:
    """Write tensors and plain containers with `torch.save`, atomically."""
    with atomic_path(path) as temporary:
        torch.save(value, temporary)


def save_text(text: str, path: Path) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_json(value: Any, path: Path) -> None:
    """Write JSON, indented, atomically."""
    save_text(json.dumps(value, indent=2) + "\n", path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU, with `weights_only=True`."""
    if not path.is_file():
        raise UserError(f"no checkpoint {path}; a run writes one into its --work-dir")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything, torch's text fills a screen
        raise UserError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): it is damaged, or no "
            "run wrote it"
        ) from error


def export(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a bare state dict as `.pth` and, with metadata, as `.safetensors`.

    Args:
        state: Names and tensors of a plain network, which loads it with no code of ours.
        path: Name of the files without their ending.
        metadata: What a user of the weights must know: classes, normalisation, recipe.
    """
    # Clones: safetensors refuses tensors that share memory.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    save(tensors, path.with_suffix(".pth"))
    with atomic_path(path.with_suffix(".safetensors")) as temporary:
        save_file(tensors, temporary, metadata={**metadata, "format": "pt"})
