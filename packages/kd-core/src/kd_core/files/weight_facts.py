"""What weights say of themselves: classes, statistics and size of images of their training."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kd_core.errors import UserError
from kd_core.files import artifacts
from kd_core.files.artifacts import Check, fact
from kd_core.files.checkpoint import load_safetensors
from kd_core.files.weight_files import described_by, main_file, split_choice
from kd_core.runtime.paths import nearest_path

_CHECKS: dict[str, Check] = {
    "classes": artifacts.NAMES,
    "mean": artifacts.MEAN,
    "std": artifacts.STD,
    "image_size": artifacts.SIZE,
}


@dataclass(frozen=True)
class WeightFacts:
    """What is known of the training of weights; None where nothing is.

    Args:
        source: Who says it, a file for instance.
        classes: Names of the classes, in the order of the logits.
        mean: Of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
        size: Pixels of a side of the images, or height and width.
    """

    source: str = ""
    classes: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: int | Sequence[int] | None = None


def class_names(written: Sequence[str] | str | None) -> Sequence[str] | None:
    """Return the names of classes that a config gives: a list, or a text file of a name a line.

    Raises:
        UserError: If the file cannot be read, or a line of it is empty.
    """
    if not isinstance(written, str):
        return written
    path = Path(written).expanduser()
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError as error:
        raise UserError(f"classes: there is no file {path}{nearest_path(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"classes: {path} is not a text file of names ({error!s:.80})") from error
    if not names or "" in names:
        line = names.index("") + 1 if names else 1
        raise UserError(f"classes: {path}, line {line} is empty; wanted a name in each line")
    return names


def facts_of(path: str | Path, *, known: Collection[str] = ()) -> WeightFacts:
    """Return what a file of weights, or a file beside it, says of their training.

    That is the metadata of a `student.safetensors`, also for the other weights in the folder of
    its run, or a `config.json` of timm or transformers.

    Args:
        path: See `kd_core.files.weights.read_state_dict`.
        known: Entries that are not read, because a config says otherwise: `classes`, `mean`, `std`
            or `image_size`.

    Raises:
        UserError: If there is no such file, or an entry is not what it must be.
    """
    file = main_file(split_choice(path)[0])
    if file.suffix == ".safetensors" and (found := _ofmetadata_of(file, metadata_of(file), known)):
        return found
    for other in described_by(file):
        if other.suffix == ".safetensors":
            return _ofmetadata_of(other, load_safetensors(other)[1], known) or WeightFacts()
        if found := _of_json(described_by(file), known):
            return found
    return WeightFacts()


def facts_in(settings: Mapping[str, Any], source: str, known: Collection[str] = ()) -> WeightFacts:
    """Return what timm's `pretrained_cfg` says, of a network or in a `config.json`.

    Raises:
        UserError: If an entry is not what it must be.
    """
    size = settings.get("input_size")
    entries = {
        "classes": settings.get("label_names"),
        "mean": settings.get("mean"),
        "std": settings.get("std"),
        "image_size": list(size[-2:]) if isinstance(size, list | tuple) else size,
    }
    return _checked(
        source, {name: _listed(value) for name, value in entries.items()}, json.dumps, known
    )


def _ofmetadata_of(
    file: Path, metadata: Mapping[str, str], known: Collection[str]
) -> WeightFacts | None:
    given = {name: metadata[name] for name in _CHECKS if name in metadata}
    return _checked(str(file), given, str, known) if given else None


def _of_json(files: Sequence[Path], known: Collection[str]) -> WeightFacts | None:
    """Return the facts of a `config.json` of timm, or of transformers with what is beside it."""
    found = {file.name: _object_in(file) for file in files}
    config, shown = found.get("config.json", {}), found.get("preprocessor_config.json", {})
    source = " and ".join(map(str, files))
    settings = config.get("pretrained_cfg")
    if isinstance(settings, Mapping):
        return facts_in({"label_names": config.get("label_names"), **settings}, source, known)
    labels, size = config.get("id2label"), shown.get("size")
    if isinstance(labels, Mapping):
        labels = [labels.get(str(number)) for number in range(len(labels))]
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")] if "height" in size else None
    entries = {"mean": shown.get("image_mean"), "std": shown.get("image_std"), "image_size": size}
    entries = {name: value for name, value in {"classes": labels, **entries}.items() if value}
    return _checked(source, entries, json.dumps, known) if entries else None


def _checked(
    source: str,
    entries: Mapping[str, Any],
    written: Callable[[Any], str],
    known: Collection[str],
) -> WeightFacts:
    given = {
        name: fact(f"{source}: {name}", written(value), _CHECKS[name])
        for name, value in entries.items()
        if value is not None and name not in known
    }
    if ("mean" in given) != ("std" in given):
        raise UserError(f"{source}: mean and std belong together, but one of them is not there")
    size = given.pop("image_size", None)
    return WeightFacts(source=source, size=size, **given)


def metadata_of(file: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, of ours or of others.

    Raises:
        UserError: If it is damaged.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: damaged, or not a safetensors file ({error})") from error


def _object_in(file: Path) -> Mapping[str, Any]:
    wanted: Check = ("an object", lambda value: isinstance(value, dict))
    try:
        found: Mapping[str, Any] = fact(str(file), file.read_text(encoding="utf-8"), wanted)
        return found
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: damaged (not a text in UTF-8)") from error


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
