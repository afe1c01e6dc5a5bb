"""From what a command line names as CONFIG to the sources of one config, left to right."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_core.catalogue.line import Part, data_of, read_line
from kd_core.catalogue.names import Catalogue, Source
from kd_core.config.reading import load_config, override
from kd_core.errors import UserError

Note = Callable[[str], object]


def sources_of(
    texts: Sequence[str],
    catalogue: Catalogue | None,
    *,
    known: Collection[str],
    note: Note,
    options: Mapping[str, Any] | None = None,
    training: bool = True,
) -> list[Source]:
    """Return files, and what stands for networks that have none; see `load_config`.

    Args:
        texts: Files and short names.
        catalogue: Of the task; without one, all are files.
        known: The top-level names of the task's configs.
        note: Takes a line on each pair, and on each name that stands for a longer one.
        options: Of the command line. Those of the data are of a pair's teacher too, where it is
            trained first on the same data.
        training: Whether the command trains anything.

    Raises:
        UserError: See `read_line`.
    """
    if catalogue is None:
        return list(texts)
    composer = _Composer(catalogue, read_line(texts, catalogue), known, note, options or {})
    return composer.sources(training=training)


def concerns_teacher(option: str) -> bool:
    """Return whether a pair's teacher that is trained first depends on an option of the student."""
    return option.split(".")[0] == "data" or option == "teacher.weights"


def run_name(text: str) -> str:
    """Return what a CONFIG adds to the name of a run's folder."""
    return text if "," in text or not text.endswith(".py") else Path(text).stem


@dataclass
class _Composer:
    """Composes one line; `before` has the sources of the parts that were read."""

    catalogue: Catalogue
    parts: Sequence[Part]
    known: Collection[str]
    note: Note
    options: Mapping[str, Any]
    before: list[Source] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)  # the node of a teacher that has no file

    def sources(self, *, training: bool) -> list[Source]:
        """Return the sources of all parts."""
        for part in self.parts:
            self.before += self._of(part)
        if self.made:
            self._complete_teacher(training=training)
        return self.before

    def _of(self, part: Part) -> list[Source]:
        if part.kind == "pairs" and part.file is None:
            return self._pair(part)
        if part.kind == "networks" and part.networks:
            return [*self._recipe(part.networks[0]), *self._network(part.networks[0])]
        if part.kind == "methods" and part.is_name:
            return [self._method(part)]
        return [part.file or part.text]

    def _pair(self, part: Part) -> list[Source]:
        """Return the file of a pair with published values for the data, else two networks.

        Their teacher is trained first, on all that comes before the pair.
        """
        (teacher, student), data = part.networks, data_of(self.parts)
        file = self.catalogue.tuned(data, teacher, student)
        if file and not (self.catalogue.recipe and self._has_recipe()):
            self.note(f"{part.text}: the pair {file.stem}, as its file has it")
            return [file]
        name = "_".join((*([data] if data else []), teacher, student))
        of_student = [*self._recipe(student), *self._network(student)]
        of_teacher = self._network(teacher)
        values: dict[str, Any] = {"pair": re.sub(r"\W+", "_", name)}
        if data in self.catalogue.untrained_on:
            new_head = self.catalogue.library_model
            node = load_config(of_teacher, known=self.known)["student"]
            values["teacher"] = {key: node[key] for key in node if key not in new_head}
            values["student"] = {**dict.fromkeys(new_head, False), "weights": "random"}
            line = f"{teacher} is not trained on {data}, {student} starts at random"
            self.note(f"{part.text}: {line}")
        else:
            sources = [*self.before, *self._recipe(teacher), *of_teacher]
            self.made = {"config": load_config(sources, known=self.known)}
            values["teacher"] = self.made
        return [*of_student, values]

    def _complete_teacher(self, *, training: bool) -> None:
        """Give the teacher that is trained first the options of the data, and print a note.

        Not where a later file has other data, which are then the student's alone.
        """
        config = load_config(self.before, known=self.known)
        if not isinstance(config.get("teacher"), Mapping):
            return
        if _type_of_data(config) == _type_of_data(self.made["config"]):
            for option, value in self.options.items():
                if option.split(".")[0] == "data":
                    with suppress(UserError):  # reported, or of what only the student's data have
                        changed = override(self.made["config"], {option: value}, known=self.known)
                        self.made["config"] = changed
        if training and not (
            self.options.get("teacher.weights") or config["teacher"].get("weights")
        ):
            pair = next(part for part in self.parts if part.kind == "pairs")
            line = f"{pair.networks[0]} is trained first, unless teacher.weights names a file"
            self.note(f"{pair.text}: {line}")

    def _method(self, part: Part) -> Source:
        """Return a method's file: that with the values for these data, if there is one."""
        assert part.file is not None, "a method is a file"
        data = data_of(self.parts)
        special = self.catalogue.files("methods").get(f"{part.file.stem}_{data}")
        if special is None:
            return part.file
        self.note(f"{part.text} on {data} is {special.stem}")
        return special

    def _network(self, name: str) -> list[Source]:
        found = self.catalogue.network(name)
        for source in found:
            if isinstance(source, Path) and Path(name).stem != source.stem:
                self.note(f"{name} is {source.stem}")
        return found

    def _recipe(self, network: str) -> list[Source]:
        """Return the recipe of a network, unless the line has one, or a file before it."""
        if self.catalogue.recipe is None or self._has_recipe() or self._is_trainable():
            return []
        return [self.catalogue.files("recipes")[self.catalogue.recipe(network)]]

    def _has_recipe(self) -> bool:
        return any(part.kind == "recipes" for part in self.parts)

    def _is_trainable(self) -> bool:
        """Return whether files of the user, before the network, say how to train it."""
        own = any(part.kind == "" for part in self.parts)
        return own and "optimizer" in load_config(self.before, known=self.known)


def _type_of_data(config: Mapping[str, Any]) -> Any:
    data = config.get("data")
    return data.get("type") if isinstance(data, Mapping) else None
