"""Where weights are on disk: a file, one of its parts, a folder, or shards with an index."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kd_core.errors import UserError, nearest
from kd_core.files.mismatch import few

CHOICE = "#"
"""Between a file and what is meant in it: `FILE#state_dict_ema`."""
IN_ORDER = "in-order"
"""What is meant where tensors have other names than the network's: `FILE#in-order`."""

_INDEX = ".index.json"
_IN_FOLDERS = (
    ("student.safetensors",),  # of a finished run
    ("model.safetensors", f"model.safetensors{_INDEX}"),  # of Hugging Face: preferred there too
    ("pytorch_model.bin", f"pytorch_model.bin{_INDEX}"),
)
_OF_RUNS = ("student.pth", "best.pth", "last.pth")
NOT_FINISHED = "its run is not finished; the same command with --resume continues it"
_MOST_OF_INDEX = 64 * 2**20  # bytes; the largest models have 1/10 of it


def split_choice(text: str | Path) -> tuple[Path, str]:
    """Return the path that `weights` names, and what is meant in it; "" where nothing is said."""
    whole = Path(text).expanduser()
    if CHOICE not in str(text) or whole.exists():
        return whole, ""
    path, _, choice = str(text).rpartition(CHOICE)
    return Path(path).expanduser(), choice


def main_file(path: Path) -> Path:
    """Return the file of weights, or the index of its shards, that a path names.

    Raises:
        UserError: If there is none, or a folder has several of one kind.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"no weights file {str(path)!r}{_files_nearby(path)}")
    for names in _IN_FOLDERS:
        there = [path / name for name in names if (path / name).is_file()]
        if len(there) > 1:
            raise UserError(f"{path} has both {' and '.join(names)}; name one of them")
        if there:
            return there[0]
    if is_unfinished_run(path):
        raise UserError(f"no weights file {str(path)!r} yet: {NOT_FINISHED}")
    wanted = ", ".join(names[0] for names in _IN_FOLDERS)
    raise UserError(
        f"no weights file {str(path)!r}, it is a folder without {wanted}; name a file in it"
        f"{nearest('', _names(path))}"
    )


def files_of(path: Path) -> list[Path]:
    """Return the files of weights that a path names: one, or the shards of an index."""
    file = main_file(path)
    return sorted(set(read_index(file).values())) if is_index(file) else [file]


def described_by(file: Path) -> list[Path]:
    """Return the files beside weights that say what their network was trained on.

    For weights that a run of ours left, its `student.safetensors`; else `config.json` and its like,
    as timm and transformers write them.
    """
    if file.name in _OF_RUNS:
        names = [_IN_FOLDERS[0][0]]
    elif file.name in {name for names in _IN_FOLDERS[1:] for name in names}:
        names = ["config.json", "preprocessor_config.json"]
    else:
        names = []
    return [file.with_name(name) for name in names if file.with_name(name).is_file()]


def is_unfinished_run(folder: Path) -> bool:
    """Return whether a folder is of a run of ours that has begun and not ended."""
    begun = (folder / "config.json").is_file() and (folder / "config.py").is_file()
    return begun and not (folder / "result.json").is_file()


def is_index(file: Path) -> bool:
    """Return whether a file lists the shards of weights."""
    return file.name.endswith(_INDEX)


def keeps_order(file: Path) -> bool:
    """Return whether a file keeps the order in which tensors were saved; safetensors sorts them."""
    return file.suffix != ".safetensors" and not is_index(file)


def read_index(file: Path) -> dict[str, Path]:
    """Return the shard of every tensor; all are in the folder of the index.

    Raises:
        UserError: If it is not an index, or names a file elsewhere or none.
    """
    names = _weight_map(file)
    for shard in set(names.values()):
        if shard in (".", "..") or shard != os.path.basename(shard) or "\\" in shard:
            raise UserError(
                f"{file}: names the shard {shard!r:.80}, which is not a file of its own folder; "
                "get the index again"
            )
        if not (file.parent / shard).is_file():
            raise UserError(f"{file}: there is no shard {shard!r:.80} beside it; get it too")
    return {name: file.parent / shard for name, shard in names.items()}


def _weight_map(file: Path) -> Mapping[str, str]:
    try:
        if file.stat().st_size > _MOST_OF_INDEX:
            raise UserError(f"{file}: too large for an index of shards")
        contents: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: wanted JSON ({type(error).__name__}); get it again") from error
    names = contents.get("weight_map") if isinstance(contents, dict) else None
    if not isinstance(names, dict) or not names:
        raise UserError(f"{file}: wanted an index with a `weight_map`, the shard of every tensor")
    wrong = [name for name, shard in names.items() if not isinstance(shard, str) or not shard]
    if wrong:
        raise UserError(f"{file}: weight_map gives no file's name for {few(wrong)}")
    return names


def _files_nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {str(path.parent)!r} does not exist"
    return nearest(path.name, _names(path.parent))


def _names(folder: Path) -> Iterable[str]:
    return (file.name for file in folder.iterdir() if file.is_file())
