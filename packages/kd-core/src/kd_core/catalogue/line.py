"""Read what a command line names as CONFIG: files, and short names in their order."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from kd_core.catalogue.names import DATA_FILES, KINDS, LISTED, Catalogue, is_of_library
from kd_core.config.folder import configs_folder, our_config
from kd_core.config.paths import file_problem
from kd_core.errors import UserError
from kd_core.runtime.paths import nearest_path

_ORDER = {"data": 0, "networks": 1, "pairs": 1, "methods": 2}


class Part(NamedTuple):
    """One CONFIG of a command line.

    Attributes:
        text: As it was written.
        kind: Of `KINDS`; "" is a user's own file.
        file: The config file, unless networks are named that have none.
        networks: Names of a network, or of teacher and student.
    """

    text: str
    kind: str
    file: Path | None
    networks: tuple[str, ...] = ()

    @property
    def is_name(self) -> bool:
        """Whether it is a short name: a file ends in .py."""
        return "," in self.text or not self.text.endswith(".py")


def read_line(texts: Sequence[str], catalogue: Catalogue) -> list[Part]:
    """Return what the texts mean; nothing is imported for that, nor is a config run.

    Raises:
        UserError: If one is neither a file nor a name, or names are not in their order.
    """
    parts = [_part(text, catalogue) for text in texts]
    if any(part.is_name for part in parts):
        _check_kinds(parts)
        _check_order(parts)
        for part in parts:
            _check_networks(part, catalogue, data_of(parts))
    return parts


def data_of(parts: Sequence[Part]) -> str:
    """Return the name of the data, "" if they are in a file of the user."""
    return next((part.file.stem for part in parts if part.kind == "data" and part.file), "")


def one_file(text: str, kind: str, catalogue: Catalogue) -> str:
    """Return the path of the one config of a kind that a text names, a file or a name.

    Raises:
        UserError: If it is neither.
    """
    if text.endswith(".py") or "/" in text:
        return str(_part(text, catalogue).file)
    files = catalogue.files(kind)
    if text not in files:
        problem = file_problem(Path(text).expanduser())
        raise UserError(problem) if Path(text).exists() else _unknown(text, kind, catalogue)
    return str(files[text])


def _unknown(text: str, kind: str, catalogue: Catalogue) -> UserError:
    if kind in LISTED:
        return catalogue.unknown(text, (kind,))
    names = ", ".join(catalogue.files(kind))
    return UserError(f"{text!r} is neither a config file, *.py, nor one of {kind}: {names}")


def _part(text: str, catalogue: Catalogue) -> Part:
    path = Path(text).expanduser()
    if "," in text and not path.is_file():
        names = tuple(name.strip() for name in text.split(","))
        if len(names) != 2 or not all(names):
            raise UserError(f"{text!r}: a pair is TEACHER,STUDENT, such as resnet32x4,resnet8x4")
        return Part(text, "pairs", None, names)
    if is_of_library(text):
        return Part(text, "networks", None, (text,))
    if "/" in text or text.endswith((".py", *DATA_FILES)):
        return _file(text, path, catalogue)
    if not (kind := catalogue.kind_of(text)):
        named = text and path.is_dir()
        raise catalogue.folder_named(text) if named else catalogue.unknown(text)
    file = catalogue.files(kind).get(text)
    return Part(text, kind, file, (text,) if kind == "networks" else ())


def _file(text: str, path: Path, catalogue: Catalogue) -> Part:
    """Return a file: the user's, else that of ours which is `KIND/NAME` or `configs/...`."""
    if path.suffix == ".py" and path.is_file():
        return Part(text, _kind_of(path, catalogue), path)
    kind, _, name = text.partition("/")
    ours = catalogue.files(kind).get(name.removesuffix(".py")) if kind in KINDS else None
    if ours := ours or our_config(text):
        networks = (ours.stem,) if kind == "networks" else ()
        return Part(text, _kind_of(ours, catalogue), ours, networks)
    if path.is_dir():
        raise catalogue.folder_named(text)
    if kind in KINDS and not path.parent.exists():
        raise _unknown(name.removesuffix(".py"), kind, catalogue)
    if kind == configs_folder().name and not Path(kind).exists():
        hint = nearest_path(configs_folder().parent / text, suffix=".py")
        raise UserError(f"there is no config file {text}{hint}")
    raise UserError(file_problem(path))


def _kind_of(path: Path, catalogue: Catalogue) -> str:
    """Return the kind of a config of ours; "" for another file."""
    kind = path.resolve().parent
    ours = kind.parent == (configs_folder() / catalogue.task).resolve()
    return kind.name if ours and kind.name in KINDS else ""


def _check_kinds(parts: Sequence[Part]) -> None:
    """Reject a line that has two of what a run has one of, or lacks what names rest on."""
    own = any(part.kind == "" for part in parts)
    words = " ".join(part.text for part in parts)
    data = [part.text for part in parts if part.kind == "data"]
    networks = [part for part in parts if part.kind in ("networks", "pairs")]
    methods = [part for part in parts if part.kind == "methods"]
    if len(data) > 1:
        raise UserError(f"{data[0]} and {data[1]} are both data; name one")
    if len(networks) > 1 and any(part.is_name for part in networks):
        first, second, *_ = (part.text for part in networks)
        both = all(part.kind == "networks" for part in networks)
        advice = f"teacher and student are one word, {first},{second}" if both else "name one"
        raise UserError(f"{first} and {second} are both networks; {advice}")
    if not (data or own) and (networks or methods):
        raise UserError(f"{words}: the data are missing; write DATA {words} (see --list data)")
    if methods and not (networks or own):
        raise UserError(
            f"{words}: the networks are missing; write {data[0]} TEACHER,STUDENT {methods[0].text} "
            "(see --list networks)"
        )


def _check_order(parts: Sequence[Part]) -> None:
    """Reject short names that are not in the order data, networks, methods."""
    ranked = [part for part in parts if part.kind in _ORDER]
    for first, second in pairwise(ranked):
        if _ORDER[first.kind] > _ORDER[second.kind] and (first.is_name or second.is_name):
            right = sorted(parts, key=lambda part: _ORDER.get(part.kind, 0))
            raise UserError(
                f"{second.text} comes after {first.text}; the order is data, networks, method: "
                f"{' '.join(part.text for part in right)}"
            )


def _check_networks(part: Part, catalogue: Catalogue, data: str) -> None:
    """Reject names of networks that do not exist, alone or in a pair."""
    if part.kind != "pairs" or part.file or catalogue.tuned(data, *part.networks):
        return
    for name in part.networks:
        if not catalogue.has_network(name):
            raise catalogue.unknown(name, ("networks",))
