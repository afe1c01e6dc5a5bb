"""The short names of the configs of detection; nothing here imports torch."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from kd_core.catalogue.names import is_of_library
from kd_core.config.folder import configs_folder

_FAMILIES = ("rcnn", "retinanet")
_OTHERS = {
    "data": {
        "coco_2017_train": "the default, in datasets/coco; DATASETS.TRAIN names others",
        "--register NAME=JSON:IMAGES": "your own data in COCO's format",
        "--register-images NAME=FOLDER": "your own images without boxes",
    },
    "networks": {
        "FILE.yaml": "any detector of Detectron2, by its config",
        "timm:NAME": "as a teacher, any network of timm that gives maps; MODULE.NAME too",
    },
    "pairs": {"TEACHER,STUDENT": "any two networks"},
}
"""Further lines of a listing."""


class Distilled(NamedTuple):
    """A config with a teacher and a method."""

    path: Path
    teacher: str
    weights: str


@dataclass(frozen=True)
class DetectionCatalogue:
    """The configs of detection by their short names."""

    @cached_property
    def networks(self) -> dict[str, Path]:
        """The detectors without distillation, by name."""
        return {
            path.stem: path
            for path in sorted((configs_folder() / "det").glob("*.yaml"))
            if path.stem not in self.distilled and not path.stem.startswith("Base-")
        }

    @cached_property
    def distilled(self) -> dict[str, Distilled]:
        """The configs that have a teacher, by name: STUDENT_METHOD."""
        found = {}
        for path in sorted((configs_folder() / "det").glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            if "\nKD:" in text:
                teacher: dict[str, Any] = yaml.safe_load(text)["KD"]["TEACHER"]
                name = Path(teacher["CONFIG"]).stem
                found[path.stem] = Distilled(path, name, teacher["WEIGHTS"])
        return found

    @cached_property
    def methods(self) -> dict[str, dict[str, Path]]:
        """The files of methods by name, and by the family of detectors: "" for all."""
        found: dict[str, dict[str, Path]] = {}
        for path in sorted((configs_folder() / "det/methods").glob("*.yaml")):
            name, _, family = path.stem.rpartition("_")
            name, family = (name, family) if family in _FAMILIES else (path.stem, "")
            found.setdefault(name, {})[family] = path
        return found

    def method(self, name: str, student: str) -> Path | None:
        """Return the file of a method for a student; None if there is none for its family."""
        files = self.methods[name]
        family = "retinanet" if "retinanet" in student.lower() else "rcnn"
        return files.get("", files.get(family))

    def weights_of(self, teacher: str) -> str:
        """Return the weights of a teacher that a config names; "" if none does."""
        known = [one.weights for one in self.distilled.values() if one.teacher == teacher]
        return known[0] if known else ""

    def has_network(self, name: str) -> bool:
        """Return whether a name is that of a detector, a file, or of a library's network."""
        return name in self.networks or Path(name).expanduser().is_file() or is_of_library(name)

    def listing(self, kind: str) -> str:
        """Return the lines of `--list`."""
        names = {**self._names(kind), **_OTHERS.get(kind, {})}
        width = max(map(len, names))
        return "\n".join(f"{name:<{width}}  {line}".rstrip() for name, line in names.items())

    def _names(self, kind: str) -> dict[str, str]:
        if kind == "networks":
            return {name: _first_line(path) for name, path in self.networks.items()}
        if kind == "methods":
            files = {name: next(iter(paths.values())) for name, paths in self.methods.items()}
            return {name: _first_line(path) for name, path in files.items()}
        found: dict[str, list[str]] = {}
        for name, one in self.distilled.items() if kind == "pairs" else ():
            student = max((known for known in self.networks if name.startswith(known)), key=len)
            method = name.removeprefix(f"{student}_")
            found.setdefault(f"{one.teacher},{student}", []).append(method)
        return {pair: f"with a config for {', '.join(names)}" for pair, names in found.items()}


def _first_line(path: Path) -> str:
    """Return the comment at the start of a file, or what the file builds on."""
    text = path.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    if first.startswith("#"):
        return first.lstrip("# ").rstrip(".")
    return f"{path.stem.replace('_', ' ')} of Detectron2"


CATALOGUE = DetectionCatalogue()
