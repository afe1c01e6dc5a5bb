"""What the configs of a task are called: data, networks, pairs and methods."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_core.config.folder import configs_folder
from kd_core.config.short_names import SCHEMES
from kd_core.errors import UserError, nearest

LISTED = ("data", "networks", "pairs", "methods")
"""Kinds of configs that have a bare name: a folder each. No name is of two kinds of a task."""
KINDS = (*LISTED, "recipes", "tables", "adapt")
"""All kinds, as `KIND/NAME`."""

_FIRST_LINE = re.compile(r'\A(?:#[^\n]*\n|\s)*r?"""(.*?)(?:\n\n|""")', re.DOTALL)
_SENTENCE = re.compile(r"(.*?)[.:]*(?:\. |$)")
_DATA = re.compile(r"\bdata/(\w+)\.py")
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")

DATA_FILES = (".yaml", ".yml", ".json", ".toml", ".txt", ".csv")
"""Endings of files that are not configs."""

Source = str | Path | Mapping[str, Any]
"""Of a config: a file, or what would stand in one."""


@dataclass(frozen=True)
class Catalogue:
    """The configs of a task by their short names.

    Args:
        task: Its folder below `configs/`.
        zoo: Returns the networks that need no file: one line on each, by name.
        zoo_node: Node of such a network, without its `name`.
        library: Beginning of names of network files that may be left out: `torchvision_`.
        library_model: Of the model of a library's network, what its node has besides `network`.
        untrained_on: Data on which a teacher is not trained first: it has weights already.
        recipe: Returns the recipe of a network by its name, where it is not of the data.
        of_folder: The words of a command line that train on a folder of images, `{}`.
    """

    task: str
    zoo: Callable[[], Mapping[str, str]] = dict
    zoo_node: Mapping[str, Any] = field(default_factory=dict)
    library: str = ""
    library_model: Mapping[str, Any] = field(default_factory=dict)
    untrained_on: tuple[str, ...] = ()
    recipe: Callable[[str], str] | None = None
    of_folder: str = ""

    def files(self, kind: str) -> dict[str, Path]:
        """Return the config files of a kind, by name."""
        folder = configs_folder() / self.task / kind
        return {path.stem: path for path in sorted(folder.glob("*.py"))}

    def names(self, kind: str) -> dict[str, str]:
        """Return what there is of a kind: one line on each, by name."""
        found = {name: first_line(path) for name, path in self.files(kind).items()}
        return {**self.zoo(), **found} if kind == "networks" else found

    def kind_of(self, name: str) -> str:
        """Return the kind of a short name, one of `LISTED`; "" if it has none."""
        kinds = [kind for kind in LISTED if name in self.files(kind)]
        return kinds[0] if kinds else "networks" if self.has_network(name) else ""

    def has_network(self, name: str) -> bool:
        """Return whether a name may be that of a network."""
        files = self.files("networks")
        found = name in files or f"{self.library}{name}" in files or name in self.zoo()
        return found or is_of_library(name) or _own_file(name) is not None

    def network(self, name: str) -> list[Source]:
        """Return what a config of this network alone is made of, besides data and recipe."""
        files = self.files("networks")
        if file := _own_file(name) or files.get(name):
            return [file]
        if name in self.zoo():
            return [{"student": {"network": {**self.zoo_node, "name": name}}}]
        if (longer := f"{self.library}{name}") in files:
            return [files[longer]]
        if ":" not in name:  # an import path; only its owner knows how it gets weights
            return [{"student": {"network": {"type": name}}}]
        return [{"student": {"network": {"type": name, "pretrained": True}, **self.library_model}}]

    def tuned(self, data: str, teacher: str, student: str) -> Path | None:
        """Return the file of a pair with published values for these data, if there is one."""
        names = [re.escape(name.removeprefix(self.library)) for name in (teacher, student)]
        pattern = re.compile(f"(?:(.+)_)?{'_'.join(names)}")
        for stem, path in self.files("pairs").items():
            if (found := pattern.fullmatch(stem)) and _data_of(path) == data:
                before = found[1] or ""
                if data.startswith(before) or f"{before}_" == self.library:
                    return path
        return None

    def listing(self, kind: str) -> str:
        """Return the lines of `--list`."""
        names = {**self.names(kind), **_OTHERS.get(kind, {})}
        width = max(map(len, names))
        return "\n".join(f"{name:<{width}}  {line}" for name, line in names.items())

    def folder_named(self, text: str) -> UserError:
        """Return the error of a folder in place of a config."""
        way = self.of_folder.format(text)
        way = f"; to train on a folder of images: {way}" if way else ""
        return UserError(f"{text} is a folder, not a config file{way}")

    def unknown(self, name: str, kinds: tuple[str, ...] = LISTED) -> UserError:
        """Return the error for a name that does not exist."""
        for kind in KINDS:
            if kind not in LISTED and name in self.files(kind):
                return UserError(f"{name!r} is one of {kind}; write {kind}/{name}")
        known = {known for kind in kinds for known in self.names(kind)}
        hint = nearest(name, known)
        hint = hint if "did you mean" in hint else f"; --list {'|'.join(kinds)} prints all"
        if kinds == ("networks",):
            return UserError(f"there is no network {name!r}{hint}")
        wanted = ", ".join(_WHAT[kind] for kind in kinds)
        return UserError(f"{name!r} is neither a config file, *.py, nor a name of {wanted}{hint}")


_WHAT = {"data": "data", "networks": "networks", "pairs": "a pair", "methods": "a method"}
_OTHERS = {
    "networks": {
        "timm:NAME": "any network of timm, with its pretrained weights; hf-hub:ORG/NAME too",
        "MODULE.NAME": "whatever makes a module, by its import path, with random weights",
    },
    "pairs": {"TEACHER,STUDENT": "any two networks; of these pairs with their published values"},
}
"""Further lines of a listing."""


def is_of_library(name: str) -> bool:
    """Return whether a name is `SCHEME:NAME` or an import path."""
    if name.endswith((".py", *DATA_FILES)):
        return False
    scheme, colon, rest = name.partition(":")
    return bool(colon and rest and scheme in SCHEMES) or bool(_IMPORT_PATH.fullmatch(name))


def _own_file(name: str) -> Path | None:
    path = Path(name).expanduser()
    return path if path.suffix == ".py" and path.is_file() else None


def first_line(path: Path) -> str:
    """Return the first sentence of a config's docstring."""
    found = _FIRST_LINE.match(path.read_text(encoding="utf-8"))
    text = " ".join(found[1].split()) if found else ""
    sentence = _SENTENCE.match(text)
    return sentence[1] if sentence else text


def _data_of(pair: Path) -> str:
    """Return the data of a pair: those of the command in its docstring."""
    found = _DATA.search(pair.read_text(encoding="utf-8"))
    return found[1] if found else ""
