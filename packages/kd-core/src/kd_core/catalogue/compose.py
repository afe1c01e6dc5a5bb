"""From what a command line names as CONFIG to the sources of one config, left to right."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from kd_core.catalogue.line import Part, data_of, read_line
from kd_core.catalogue.names import Catalogue, Source
from kd_core.config.reading import load_config

Note = Callable[[str], object]


def sources_of(
    texts: Sequence[str], catalogue: Catalogue | None, *, known: Collection[str], note: Note
) -> list[Source]:
    """Return files, and what stands for networks that have none; see `load_config`.

    Args:
        texts: Files and short names.
        catalogue: Of the task; without one, all are files.
        known: The top-level names of the task's configs.
        note: Takes a line on each pair, and on each name that stands for a longer one.

    Raises:
        UserError: See `read_line`.
    """
    if catalogue is None:
        return list(texts)
    parts = read_line(texts, catalogue)
    sources: list[Source] = []
    for part in parts:
        if part.kind == "pairs" and part.file is None:
            sources += _pair(part, parts, sources, catalogue, known, note)
        elif part.kind == "networks" and part.networks:
            sources += [*_recipe(part.networks[0], parts, catalogue)]
            sources += _network(part.networks[0], catalogue, note)
        elif part.kind == "methods" and part.is_name:
            sources.append(_method(part, data_of(parts), catalogue, note))
        else:
            sources.append(part.file or part.text)
    return sources


def run_name(text: str) -> str:
    """Return what a CONFIG adds to the name of a run's folder."""
    return text if "," in text or not text.endswith(".py") else Path(text).stem


def _pair(
    part: Part,
    parts: Sequence[Part],
    before: Sequence[Source],
    catalogue: Catalogue,
    known: Collection[str],
    note: Note,
) -> list[Source]:
    """Return a pair: its file if it has published values for the data, else made of two networks.

    Its teacher is trained first, on all that stands before the pair.
    """
    teacher, student = part.networks
    data, recipe = data_of(parts), _recipe(student, parts, catalogue)
    own_recipe = catalogue.recipe is not None and any(one.kind == "recipes" for one in parts)
    if not own_recipe and (file := catalogue.tuned(data, teacher, student)):
        note(f"{part.text}: the pair {file.stem}, with its published values")
        return [file]
    name = _slug("_".join((*([data] if data else []), teacher, student)))
    of_student = [*recipe, *_network(student, catalogue, note)]
    of_teacher = _network(teacher, catalogue, note)
    values: dict[str, Any] = {"pair": name}
    if data in catalogue.untrained_on:
        node = load_config(of_teacher, known=known)["student"]
        values["teacher"] = _without(node, catalogue)
        values["student"] = {**dict.fromkeys(catalogue.library_model, False), "weights": "random"}
        note(f"{part.text}: {teacher} teaches with the weights it has, {student} starts at random")
    else:
        sources = [*before, *_recipe(teacher, parts, catalogue), *of_teacher]
        values["teacher"] = {"config": load_config(sources, known=known)}
        note(f"{part.text}: {teacher} is trained first, unless teacher.weights names a file")
    return [*of_student, values]


def _method(part: Part, data: str, catalogue: Catalogue, note: Note) -> Source:
    """Return a method's file: that with the values for these data, if there is one."""
    assert part.file is not None, "a method is a file"
    name = f"{part.file.stem}_{data}"
    special = catalogue.files("methods").get(name)
    if special is None:
        return part.file
    note(f"{part.text} on {data} is {name}")
    return special


def _network(name: str, catalogue: Catalogue, note: Note) -> list[Source]:
    found = catalogue.network(name)
    for source in found:
        if isinstance(source, Path) and Path(name).stem != source.stem:
            note(f"{name} is {source.stem}")
    return found


def _recipe(network: str, parts: Sequence[Part], catalogue: Catalogue) -> list[Source]:
    """Return the recipe of a network, unless the command line names one, or has its own files."""
    if catalogue.recipe is None or any(part.kind in ("", "recipes") for part in parts):
        return []
    return [catalogue.files("recipes")[catalogue.recipe(network)]]


def _without(node: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """Return a library's model as it was trained, without what a new head needs."""
    return {key: value for key, value in node.items() if key not in catalogue.library_model}


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text)
