"""Known rows of a comparison: finished ones, and those of its earlier table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kd_core.errors import UserError
from kd_core.experiment.results import FILE as FINISHED
from kd_core.experiment.results import read_result
from kd_core.experiment.seeds import seed_folder
from kd_core.files.checkpoint import load_json

Results = dict[str, list[dict[str, Any]]]
"""Of every row, the results of its seeds; see `kd_core.experiment.run.run`."""


class Rows(NamedTuple):
    """The rows of a table.

    Attributes:
        results: By label, in the order of the table.
        earlier: Labels of rows that are only in the earlier table: finished with other settings or
            none of the seeds, or not a row of this command. They are kept, but nothing is compared
            with them.
    """

    results: Results
    earlier: frozenset[str]


def read_table(file: Path) -> Results:
    """Return the rows of an earlier table; none if there is no file.

    Raises:
        UserError: If it is damaged.
    """
    if not file.exists():
        return {}
    remedy = "move it elsewhere: the results of its rows are in their own folders"
    table = load_json(file, remedy=remedy, unsealed=True)  # older releases wrote no checksum
    for label, results in table.items():
        if not (isinstance(results, list) and results and all(map(_is_result, results))):
            raise UserError(f"{file}: damaged (row {label!r} has no results); {remedy}")
    return table


def known_rows(folders: Mapping[str, Path], seeds: Sequence[int], earlier: Results) -> Rows:
    """Return what is finished of every row, and the earlier table's rows that are not among them.

    A row's folder is named by its settings, so what is finished in it has these settings. A row
    may have some of the seeds only: it is compared over those that another row has too.

    Args:
        folders: Of all rows, in order, those included that do not run now.
        seeds: Those that are asked for.
        earlier: From `read_table`.
    """
    found = {label: _finished(folder, seeds) for label, folder in folders.items()}
    finished = {label: runs for label, runs in found.items() if runs}
    both = {**earlier, **finished}
    order = [*folders, *(label for label in earlier if label not in folders)]
    results = {label: both[label] for label in order if label in both}
    return Rows(results, frozenset(results.keys() - finished.keys()))


def _finished(folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the results of the seeds that are finished in a row's folder, with their folders."""
    places = [seed_folder(folder, seed, seeds) for seed in seeds]
    runs = [
        {"folder": place.relative_to(folder.parent).as_posix(), **read_result(place)}
        for place in dict.fromkeys(places)
        if (place / FINISHED).is_file()
    ]
    return [run for run in runs if run.get("seed") in seeds]


def _is_result(result: Any) -> bool:
    parts = [result.get(which) for which in ("last", "best")] if isinstance(result, dict) else []
    return bool(parts) and all(isinstance(part, dict) for part in parts)
