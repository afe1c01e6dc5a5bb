"""Short names on the command line of detection: `TEACHER,STUDENT METHOD` for a config file."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import yaml
from kd_core.catalogue.names import is_of_library
from kd_core.errors import UserError, nearest
from kd_core.runtime.paths import nearest_path

from kd_det.catalogue import CATALOGUE
from kd_det.settings.zoo import find_config, folder_text

_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\..*)?")
_CONFIGS = (".yaml", ".yml", ".py")
_ROOT_KEYS = ("VERSION", "OUTPUT_DIR", "SEED", "CUDNN_BENCHMARK", "VIS_PERIOD")
"""Detectron2's keys without a dot; a file of such a name is meant by `./SEED`."""
_SEE = "; --list networks and --list methods print what there is"


class Named(NamedTuple):
    """What names stand for: a config file, and KEY VALUE pairs that name the teacher."""

    file: str
    options: list[str]


def split_names(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names that texts begin with, and the rest: options, KEY VALUE pairs.

    A key has capital letters up to its first dot; a config does not, or it ends as a config does,
    or is a file.
    """
    names = list(takewhile(_is_name, texts))
    return names, list(texts[len(names) :])


@contextmanager
def named_config(names: Sequence[str]) -> Iterator[Named | None]:
    """Give the config that names stand for, in a file that lasts as long as the block.

    Raises:
        UserError: If there is no such network or method, or they are in another order.
    """
    if not names:
        yield None
        return
    first, *methods = names
    teacher, comma, student = first.rpartition(",")
    _check(names, teacher if comma else None, student)
    published = CATALOGUE.distilled.get(f"{student}_{'_'.join(methods)}")
    if published and published.teacher == teacher:
        yield Named(str(published.path), [])
    elif not methods:
        yield Named(str(find_config(student)), [])
    else:
        files = [_network(student), *(_method(name, student) for name in methods)]
        with TemporaryDirectory(prefix="kd-") as folder:
            file = Path(folder) / f"{Path(student).stem}_{'_'.join(methods)}.yaml"
            file.write_text(yaml.safe_dump({"_BASE_": [str(path) for path in files]}))
            yield Named(str(file), _teacher(teacher))


def _is_name(text: str) -> bool:
    if text.startswith("-"):
        return False
    if not _KEY.fullmatch(text) or text.endswith(_CONFIGS):
        return True
    return text not in _ROOT_KEYS and Path(text).is_file()


def _check(names: Sequence[str], teacher: str | None, student: str) -> None:
    first, *methods = names
    pairs = [text for text in methods if "," in text]
    if pairs or (methods and first in CATALOGUE.methods):
        networks = pairs or [text for text in methods if text not in CATALOGUE.methods]
        right = " ".join([*networks, *(text for text in names if text not in networks)])
        raise UserError(f"{first}: the order is networks, method: {right}")
    if first.count(",") > 1 or teacher == "" or not student:
        raise UserError(
            f"{first!r}: a pair is TEACHER,STUDENT, such as "
            "faster_rcnn_R_101_FPN,faster_rcnn_R_18_FPN"
        )
    for network in (teacher, student) if teacher else (student,):
        if not CATALOGUE.has_network(network):
            raise _no_network(network)
    if is_of_library(student):
        raise UserError(f"{student} is not a detector; as a teacher it comes before the comma")
    for name in methods:
        if name not in CATALOGUE.methods:
            raise UserError(f"there is no method {name!r}{nearest(name, CATALOGUE.methods)}")
    if teacher and not methods:
        raise UserError(f"{first}: a method is missing; write {first} METHOD (see --list methods)")
    if methods and teacher is None:
        raise UserError(
            f"{' '.join(names)}: the teacher is missing; write TEACHER,{student} {methods[0]}"
        )


def _no_network(name: str) -> UserError:
    if Path(name).expanduser().is_dir():
        return UserError(folder_text(name))
    if "/" in name or name.endswith(_CONFIGS):
        return UserError(f"there is no config file {name}{nearest_path(Path(name).expanduser())}")
    if name in CATALOGUE.distilled:
        return UserError(f"{name} has a teacher already; write --config-file {name}")
    return UserError(f"there is no network {name!r}{nearest(name, CATALOGUE.networks)}{_SEE}")


def _network(name: str) -> Path:
    return CATALOGUE.networks.get(name) or Path(name).expanduser().resolve()


def _method(name: str, student: str) -> Path:
    path = CATALOGUE.method(name, student)
    if path is None:
        raise UserError(f"{name} has no values for {student}, only for another family of detectors")
    return path


def _teacher(name: str) -> list[str]:
    """Return the KEY VALUE pairs of a teacher; its weights where a config of ours names them."""
    if is_of_library(name):
        return ["KD.TEACHER.NETWORK", name, "KD.TEACHER.WEIGHTS", "pretrained"]
    weights = CATALOGUE.weights_of(name)
    return [
        *("KD.TEACHER.CONFIG", str(_network(name))),
        *(("KD.TEACHER.WEIGHTS", weights) if weights else ()),
    ]
