"""Files that are whole or absent: atomic writes, and safe reading."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from kd_core.checksum import DamagedError, opened_json, sealed_json
from kd_core.errors import UserError
from kd_core.system_errors import cannot_write


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which takes its place only if the block succeeds.

    Raises:
        UserError: If it cannot be written, because the disk is full for instance.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        told = cannot_write(path, error)
        if told is None:
            raise
        raise told from error
    finally:
        with suppress(OSError):
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
    # By a Python file: only that tells why it could not be written.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(value, file)


def save_text(text: str, path: Path) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_json(value: Mapping[str, Any], path: Path, *, sealed: bool = True) -> None:
    """Write a JSON object atomically, with a checksum as its last entry; see `load_json`.

    Args:
        value: The object.
        path: The file.
        sealed: Whether it has the checksum; a file for other programs is better without.
    """
    save_text(sealed_json(value) if sealed else json.dumps(value, indent=2) + "\n", path)


def load_json(
    path: Path,
    *,
    remedy: str = "delete it, and --resume makes it again",
    unsealed: bool = False,
) -> dict[str, Any]:
    """Read what `save_json` wrote, without its checksum.

    Args:
        path: The file.
        remedy: What the user can do about a file that cannot be read.
        unsealed: Whether a file without a checksum is taken too: one that is made by hand, or by
            an older release.

    Raises:
        UserError: If there is no such file, or it is damaged.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: there is no such file; {remedy}")
        return opened_json(path.read_text(encoding="utf-8"), unsealed=unsealed)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged (not a text in UTF-8); {remedy}") from error
    except DamagedError as error:
        raise UserError(f"{path}: damaged ({error}); {remedy}") from error


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
