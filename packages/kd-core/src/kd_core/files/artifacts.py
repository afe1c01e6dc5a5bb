"""A finished student's file: find it, read its metadata, rebuild its network."""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open
from torch import nn

from kd_core.errors import UserError, nearest
from kd_core.files.checkpoint import load_safetensors
from kd_core.files.weight_files import NOT_FINISHED, is_unfinished_run

FILE = "student.safetensors"
_MOST_PIXELS = 16384  # of a side
_MOST_NAMES = 100_000  # ImageNet-21k has 21,843
_LONGEST_NAME = 1000  # letters; some of ImageNet's list all synonyms
_MOST_TEXT = 16 * 2**20  # letters of one entry


def find_student(path: str | Path) -> Path:
    """Return the file of a student: `path` itself, or `student.safetensors` in the folder `path`.

    Raises:
        UserError: If there is none.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if (path / FILE).is_file():
            return path / FILE
        if is_unfinished_run(path):
            raise UserError(f"{path} has no {FILE} yet: {NOT_FINISHED}")
        others = [str(file.parent) for file in path.glob(f"**/{FILE}")]
        hint = nearest("", others) or "; a run writes it at its end"
        raise UserError(f"{path} has no {FILE}{hint}")
    if not path.is_file():
        raise UserError(f"{path} is neither a run's folder nor a {FILE}")
    if path.suffix != ".safetensors" and is_unfinished_run(path.parent):
        raise UserError(f"{path} has no {FILE} beside it yet: {NOT_FINISHED}")
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: wanted a run's folder or its {FILE}, since only that file names the network "
            "and classes of its weights"
        )
    return path


def read_facts(
    file: Path,
    checks: Mapping[str, "Check"],
    optional: Mapping[str, "Check"] | None = None,
    instead: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the metadata of a student's file.

    Args:
        file: The file.
        checks: The entries that a file of this task must have, and a check for each.
        optional: Those that it may have.
        instead: Those of the optional ones that take the place of an entry, by its name; a file
            has one of the two.

    Raises:
        UserError: If the file is damaged, or an entry is missing or wrong.
    """
    _, metadata = load_safetensors(file)  # the checksum covers the whole file
    other = instead or {}
    both = [name for name in other if {name, other[name]} <= metadata.keys()]
    if both:
        raise UserError(f"{file} has both {both[0]} and {other[both[0]]}, which cannot be")
    missing = [name for name in checks if not {name, other.get(name)} & metadata.keys()]
    if missing:
        raise UserError(
            f"{file} does not name its {', '.join(missing)}; name a file that a training tool of "
            "this task wrote"
        )
    wanted = {k: v for k, v in {**checks, **(optional or {})}.items() if k in metadata}
    return {name: fact(f"{file}: {name}", metadata[name], wanted[name]) for name in wanted}


def largest_tensor(file: Path) -> int:
    """Return how many elements the largest tensor of a student's file has."""
    with safe_open(file, framework="pt") as opened:
        return max((math.prod(opened.get_slice(k).get_shape()) for k in opened.keys()), default=0)  # noqa: SIM118


def rebuild(make: Callable[[], nn.Module], load: Callable[[nn.Module], None]) -> nn.Module:
    """Make a network and load a student's file into it.

    It is made on the meta device first, where tensors use no memory. So a small file that names a
    huge network is rejected before the network is built, if its constructor can run there.

    Args:
        make: Builds the network.
        load: Loads the file into it, and rejects a network that does not fit.

    Raises:
        UserError: If the network cannot be made, or does not fit the file.
    """
    rehearsed = None
    with suppress(Exception), torch.device("meta"):  # reading a tensor fails there
        rehearsed = make()
    if rehearsed is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "for .* no-op")  # nothing is loaded; it is compared
            load(rehearsed)
    network = make()
    load(network)
    return network


Check = tuple[str, Callable[[Any], bool]]
"""What an entry must be, and whether a value is that."""


def _is_positive(value: Any, most: float = math.inf) -> bool:
    return type(value) is int and 1 <= value <= most


def _are_numbers(values: Any, above: float) -> bool:
    return (
        isinstance(values, list)
        and len(values) in (1, 3)
        and all(type(number) in (int, float) and above < number < 1e6 for number in values)
    )


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= _MOST_NAMES and all(map(_is_name, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_NAME and value.isprintable()


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list) else [value, value]
    return len(sides) == 2 and all(_is_positive(side, _MOST_PIXELS) for side in sides)


NODE: Check = ("a dict with `type`, an import path", _is_node)
NAMES: Check = (f"a list of names in printable letters, {_MOST_NAMES:,} at most", _are_names)
MEAN: Check = ("three numbers, or one of grey images", lambda value: _are_numbers(value, -1e6))
STD: Check = ("three numbers above 0, or one of grey images", lambda value: _are_numbers(value, 0))
COUNT: Check = ("a whole number, 1 or more", _is_positive)
SIZE: Check = (f"a side, or height and width, each from 1 to {_MOST_PIXELS} pixels", _is_size)
KEY: Check = ("a name or a number", lambda value: type(value) in (str, int))
FLAG: Check = ("true or false", lambda value: isinstance(value, bool))


def fact(where: str, text: str, check: Check) -> Any:
    """Return a value that a file writes as JSON.

    Raises:
        UserError: If it is not JSON, or not what the check wants.
    """
    wanted, is_so = check
    if len(text) > _MOST_TEXT:
        raise UserError(f"{where}: wanted {wanted}, got {len(text):,} letters")
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: wanted JSON, {wanted}, got {text!r:.60} ({reason})") from error
    if not is_so(value):
        raise UserError(f"{where}: wanted {wanted}, got {text!r:.60}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")
