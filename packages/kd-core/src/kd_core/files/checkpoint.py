"""Atomic writes, so that a file is whole or absent, and safe reading."""

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.files import leftovers
from kd_core.files.checksum import (
    KEY,
    DamagedError,
    HashedFile,
    hash_of_tensors,
    is_sealed,
    opened_json,
    sealed_json,
)
from kd_core.runtime.system_errors import cannot_write


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it only if the block succeeds.

    Temporary files of killed processes are removed when a run claims the folder.

    Raises:
        UserError: If it cannot be written, because the disk is full for instance.
    """
    temporary = leftovers.temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # the permissions of the user's umask
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)  # safetensors writes files that only their owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        refusal = cannot_write(path, error)
        if refusal is None:
            raise
        raise refusal from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which replaces it only if the block succeeds.

    If another process was faster, its folder stays and ours is removed. Temporary folders of
    killed processes beside `path` are removed too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    leftovers.remove_leftovers(path.parent)
    temporary = leftovers.temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    except OSError:
        if not path.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save(value: Any, path: Path) -> None:
    """Write tensors and plain containers with `torch.save`, atomically, and with a checksum.

    The checksum is inside the file (the comment of the zip archive), so a kill cannot separate
    them; plain `torch.load` reads the file as any other.
    """
    with atomic_path(path) as temporary:
        file = HashedFile(temporary)
        try:
            torch.save(value, cast(IO[bytes], file))
            file.seal()
        finally:
            file.close()


def save_text(text: str, path: Path) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_json(value: Mapping[str, Any], path: Path, *, sealed: bool = True) -> None:
    """Write a JSON object atomically, with a checksum as its last entry; see `load_json`.

    Args:
        value: The object.
        path: The file.
        sealed: Whether to add the checksum; leave it out of files for other programs.
    """
    save_text(sealed_json(value) if sealed else json.dumps(value, indent=2) + "\n", path)


def load_json(
    path: Path,
    *,
    remedy: str = "",
    unsealed: bool = False,
) -> dict[str, Any]:
    """Read a file of `save_json`, without its checksum.

    Args:
        path: The file.
        remedy: What the user can do about a file that cannot be read; by default, of one in the
            folder of a run.
        unsealed: Whether to accept a file without a checksum: one that is written by hand, or by
            an older release.

    Raises:
        UserError: If there is no such file, or it is damaged.
    """
    cause: Exception
    try:
        if not path.is_file():
            instead = remedy or "name the folder of a run that has one"
            raise UserError(f"{path}: there is no such file; {instead}")
        return opened_json(path.read_text(encoding="utf-8"), unsealed=unsealed)
    except OSError as error:
        problem, cause = f"cannot be read ({error.strerror or error})", error
    except UnicodeDecodeError as error:
        problem, cause = "damaged (not a text in UTF-8)", error
    except DamagedError as error:
        problem, cause = f"damaged ({error})", error
    remedy = remedy or "move it elsewhere, and --resume creates it again"
    raise UserError(f"{path}: {problem}; {remedy}") from cause


def is_plain(state: Any) -> bool:
    """Return whether a value is a dict by name of what `save` can write and `load` reads back.

    That is tensors, numbers, texts, None, and lists, tuples and dicts of these.
    """
    return isinstance(state, dict) and all(
        type(name) is str and _is_plain(value) for name, value in state.items()
    )


def _is_plain(value: Any) -> bool:
    if type(value) in (dict, OrderedDict):
        return all(type(key) in (str, int) and _is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Tensor):
        return type(value) in (Tensor, nn.Parameter) and value.device.type != "meta"
    return value is None or type(value) in (str, int, float, bool)


def load(
    path: Path,
    *,
    remedy: str = "name another checkpoint, or train again",
    unsealed: bool = False,
) -> dict[str, Any]:
    """Read a checkpoint that `save` wrote onto the CPU, with `weights_only=True`.

    Args:
        path: The file.
        remedy: What the user can do about a file that cannot be read.
        unsealed: Whether to accept a file without a checksum, as other programs write it.

    Raises:
        UserError: If the file is missing, damaged, or of another program.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint {path}; a run writes one into its --work-dir")
    try:
        with path.open("rb") as file:
            if not is_sealed(file) and not unsealed:
                raise DamagedError("it has no checksum: cut off, or of another program")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except DamagedError as error:
        raise UserError(f"{path}: damaged ({error}); {remedy}") from error
    except Exception as error:  # damaged pickles raise anything, and torch's text is long
        raise UserError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); {remedy}"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: wanted a checkpoint, got {type(state).__name__}; {remedy}")
    return state


def export(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a bare state dict as `.pth` and, with metadata, as `.safetensors`.

    Both have a checksum; in the second file it is an entry of the metadata.

    Args:
        state: Names and tensors of a plain network, which loads them without this package.
        path: Name of the files without their ending.
        metadata: What a user of the weights must know: classes, normalisation, recipe.
    """
    # Clones: safetensors rejects tensors that share memory.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    save(tensors, path.with_suffix(".pth"))
    facts = {**metadata, "format": "pt"}
    facts[KEY] = hash_of_tensors(tensors, facts)
    with atomic_path(path.with_suffix(".safetensors")) as temporary:
        save_file(tensors, temporary, metadata=facts)


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a `.safetensors` file, and its metadata without the checksum.

    Raises:
        UserError: If it is damaged. Files of other programs have no checksum and are not checked.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file ({error})") from error
    found = metadata.pop(KEY, None)
    if found is not None and found != hash_of_tensors(tensors, metadata):
        raise UserError(
            f"{path}: damaged (its checksum does not match); get it again, or train again"
        )
    return tensors, metadata
