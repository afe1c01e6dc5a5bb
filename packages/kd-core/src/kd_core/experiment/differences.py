"""Whether two configs make the same result: what is compared, and how differences are named."""

import functools
import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.files.fingerprint import hash_of, hash_of_file
from kd_core.files.weight_files import described_by, files_of, main_file, split_choice
from kd_core.training.settings import TrainerSettings

EPOCHS = "trainer.epochs"

TRAINER = {
    "epochs": True,  # but a run may resume for more; see `kd_core.experiment.identity.check`
    "precision": True,
    "channels_last": True,
    "activation_checkpointing": False,  # blocks compute the same again
    "shard_teachers": True,  # such teachers have no folded copies
    "accumulate": True,
    "clip_norm": True,
    "step": True,
    "ema": True,
    "ema_warmup": True,
    "early_stop": True,
    "sync_batchnorm": True,
    "find_unused_parameters": True,  # DDP then adds gradients in other groups
    "accelerate_teachers": True,
    "teacher_cache": True,  # whether, since it keeps float16, and how many classes; not where
    "allow_weak_teacher": False,
    "capture": False,
    "compile": True,
    "eval_every": True,  # the best epoch is one that was evaluated
    "save_every": False,
    "save_minutes": False,
    "keep_every": False,
    "log_every": False,
    "hooks": True,  # they may change anything
    "loggers": False,  # they only look, see `Logger`
}
"""Every key of a config's `trainer`: whether another value may change a bit of the result."""

DATA_MAY_DIFFER = ("workers", "decoded", "download")
"""Keys of `data` that cannot change a result. All others, and all other nodes, count."""

_WEIGHTS = "weights"

PLACES = ("root", "source", "folder", "evaluate_on")
"""Keys of `data` that say where it is. It may move; that it is the same, its fingerprint says."""

_NESTED = r"(?:(?:phases\.[^.]+|teacher\.config|teachers\.[^.]+\.config)\.)*"
_DATA = rf"{_NESTED}data\.(?:arguments\.)?"
_free_of_trainer = "|".join(key for key, counts in TRAINER.items() if not counts)
_FREE = re.compile(
    rf"(?:{_NESTED}trainer\.(?:{_free_of_trainer})|{_DATA}(?:{'|'.join(DATA_MAY_DIFFER)}))(?:\.|$)"
)
_PLACE = re.compile(rf"{_DATA}(?:{'|'.join(PLACES)})$")
_CACHE = re.compile(rf"{_NESTED}trainer\.teacher_cache$")
_ABSENT = "not set"
_MOST = 3  # differing keys that a message names


def with_contents(value: Any, key: str = "") -> Any:
    """Return a config in JSON's types, where a file's name is beside the hash of its content.

    A weights file or a list thus counts by what is in it, at any place; `~` is the home folder.
    So do weights in a folder, in shards or in a part of a file, and what is beside them and says
    what they were trained on.

    Args:
        value: The config, or a part of it.
        key: Under which it is; `weights` may be more than a file.
    """
    if _is_file(value):
        return value  # done before
    if isinstance(value, Mapping):
        return {
            str(key): item if key == "type" else with_contents(item, str(key))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [with_contents(item) for item in value]
    if isinstance(value, str):
        path = os.path.expanduser(value)
        if key == _WEIGHTS and (found := _hash_of_weights(value)):
            return {"file": value, "sha256": found}
        if os.path.isfile(path):  # False for text that cannot be a path
            return {"file": value, "sha256": _hash_of(path)}
    return value


def essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a config can change its result, by dotted path; files by their hashes.

    The place of the data counts here, since the data itself is not read.
    """
    return {
        path: _value_of(value)
        for path, value in flat(with_contents(config)).items()
        if not _FREE.match(path)
    }


def digest(config: Mapping[str, Any]) -> str:
    """Return a hash of what in a config counts, as `with_contents` gave it.

    The place of the data and the number of epochs are left out: they may change.
    """
    leaves = [
        (path, _value_of(leaf))
        for path, leaf in flat(config).items()
        if not (_FREE.match(path) or _PLACE.match(path) or path == EPOCHS)
    ]
    return hashlib.sha256(json.dumps(sorted(leaves)).encode()).hexdigest()[:16]


def differences(
    kept: Mapping[str, Any], asked: Mapping[str, Any], free: Callable[[str], Any] = _FREE.match
) -> dict[str, str]:
    """Return what differs between two configs, by dotted path, as text; see `with_contents`.

    Args:
        kept: That of what is there.
        asked: That of what is wanted.
        free: Returns whether a path may differ.
    """
    there, here = flat(kept), flat(asked)
    return {
        path: f"{path} is {_shown(there, path)} there and {_shown(here, path)} here"
        for path in {**there, **here}
        if not (free(path) or _is_filled(path, there, here) or _is_filled(path, here, there))
        and not _same(_value(there, path), _value(here, path))
    }


def moved(kept: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Return the dotted paths that name another place of the data, whatever is there."""
    there, here = flat(kept), flat(asked)
    places = [path for path in {**there, **here} if _PLACE.match(path)]
    return [path for path in places if _name(there.get(path)) != _name(here.get(path))]


def refuse(where: object, found: Mapping[str, str], remedy: str) -> None:
    """Raise if another config made a result, with some of the keys that differ."""
    if found:
        more = f" (and {len(found) - _MOST} more)" if len(found) > _MOST else ""
        shown = "; ".join(list(found.values())[:_MOST])
        raise UserError(f"{where} was made by another config: {shown}{more}; {remedy}")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of a nested value by dotted path; a file with its hash is one leaf."""
    if _CACHE.match(path):
        kept = value.get("topk") if isinstance(value, Mapping) else None
        return {path: bool(value), **({f"{path}.topk": kept} if kept is not None else {})}
    if isinstance(value, Mapping) and value and not _is_file(value):
        items = list(value.items())
    elif isinstance(value, list | tuple) and value:
        items = list(enumerate(value))
    else:
        return {path: value}
    leaves: dict[str, Any] = {}
    for key, item in items:
        leaves |= flat(item, f"{path}.{key}" if path else str(key))
    return leaves


@functools.cache
def _defaults() -> dict[str, Any]:
    """Return the values that the trainer takes for keys which a config leaves out."""
    parameters = inspect.signature(TrainerSettings).parameters.values()
    known = {
        f"trainer.{p.name}": with_contents(p.default)
        for p in parameters
        if p.default is not p.empty
    }
    return {path: _ABSENT if value is None else value for path, value in known.items()}


def _value(leaves: Mapping[str, Any], path: str) -> Any:
    value = leaves.get(path, _defaults().get(path, _ABSENT))
    return _ABSENT if value is None and path in _defaults() else value


def _is_filled(path: str, leaves: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Return whether a node is empty here, and has entries on the other side."""
    if leaves.get(path) not in ({}, []):
        return False
    return any(other.startswith(f"{path}." if path else "") and other != path for other in others)


def _same(one: Any, other: Any) -> bool:
    if _is_file(one) and _is_file(other):
        return bool(one["sha256"] == other["sha256"])
    # A file that is not there now, or was not then, counts by its name.
    one, other = _name(one), _name(other)
    nan = one != one and other != other
    return bool(nan or (one == other and isinstance(one, bool) == isinstance(other, bool)))


def _value_of(leaf: Any) -> Any:
    return leaf["sha256"] if _is_file(leaf) else leaf


def _name(value: Any) -> Any:
    return value["file"] if _is_file(value) else value


def _shown(leaves: Mapping[str, Any], path: str) -> str:
    value = leaves.get(path, _defaults().get(path, _ABSENT))
    if value == _ABSENT:
        return _ABSENT
    return f"{value['file']!r} ({value['sha256'][:8]})" if _is_file(value) else f"{value!r:.120}"


def _is_file(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == {"file", "sha256"}
        and all(isinstance(text, str) for text in value.values())
    )


def _hash_of_weights(value: str) -> str | None:
    """Return a hash of weights in several files, or in a part of one; None for others."""
    path, choice = split_choice(value)
    try:
        main = main_file(path)
        files = [*files_of(path), *described_by(main)]
    except (UserError, OSError, ValueError):  # reported where they are read
        return None
    if files == [path] and not choice:
        return None
    return hash_of(choice, *(_hash_of(str(file)) for file in (main, *files)))


def _hash_of(path: str) -> str:
    stat = os.stat(path)
    return _hash_once(os.path.abspath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _hash_once(path: str, *_: int) -> str:
    return hash_of_file(Path(path))
