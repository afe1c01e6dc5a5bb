"""Runs found again in a folder, as a table: `kd list runs`."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from kd_core.experiment import identity
from kd_core.experiment.seeds import spread, text
from kd_core.front.runs import BESIDE, Run, read_run
from kd_core.runtime.console import err, in_one_line, out

_SEED = "seed-"
_WIDE = 10_000


def list_runs(folder: Path, *, as_json: bool = False) -> None:
    """Print a table of all runs below a folder, the newest last; or a line of JSON for each."""
    runs = sorted(map(read_run, run_folders(folder)), key=lambda run: (run.date, run.folder))
    if not runs:
        err.print(f"{folder} has no runs")
    elif as_json:
        for run in runs:
            shown = {name: value for name, value in asdict(run).items() if name != "key"}
            out.file.write(json.dumps(shown) + "\n")
    else:
        _print(_table(runs))
        for run in runs:
            if run.problem:
                err.print(in_one_line(run.problem))


def _print(table: Table) -> None:
    """Print a table; in a pipe each run is one line, with its whole name."""
    width = out.width
    try:
        if not out.is_terminal:
            out.width = _WIDE
        out.print(table)
    finally:
        out.width = width


def run_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs; of a run's own folders only those of further seeds."""

    def cannot(error: OSError) -> None:
        err.print(f"warning: {error.filename} cannot be read ({error.strerror})")

    for place, names, files in os.walk(folder, onerror=cannot):
        is_run = _is_run(Path(place), files)
        if is_run:
            yield Path(place)
        wanted = _SEED if is_run else ""
        names[:] = [n for n in sorted(names) if n.startswith(wanted) and not n.startswith(".")]


def _is_run(place: Path, files: Sequence[str]) -> bool:
    """Return whether a folder is a run's: others' models have a `config.json` too."""
    if identity.FILE not in files:
        return False
    if any(name in files for name in BESIDE):
        return True
    with suppress(OSError, UnicodeDecodeError):
        return '"made_by"' in (place / identity.FILE).read_text(encoding="utf-8")
    return False


def _table(runs: Iterable[Run]) -> Table:
    """Return a table of runs, the seeds of one config in one row."""
    rows: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        path = Path(run.folder)
        place = str(path.parent) if path.name.startswith(_SEED) else run.folder
        rows.setdefault((place, run.key), []).append(run)
    table = Table("run", "task", "terms", "metric", "last", "best", "seeds", "state", "date")
    for (place, _), same in sorted(rows.items(), key=lambda row: row[1][-1].date):
        done = [run for run in same if run.state == "finished"]
        counted = done or (same if len(same) == 1 else [])
        first = (counted or same)[0]
        table.add_row(
            in_one_line(place),
            first.task or "-",
            ", ".join(first.terms) or "-",
            first.metric or "-",
            _mean([run.last for run in counted]),
            _mean([run.best for run in counted]),
            " ".join(str(seed) for seed in sorted(r.seed for r in same if r.seed is not None)),
            _state(same, len(done)),
            same[-1].date.replace("T", " ")[:16],
        )
    return table


def _mean(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return text(spread(numbers)) if numbers else "-"


def _state(same: Sequence[Run], finished: int) -> str:
    """Return the state of the runs of a row."""
    if 0 < finished < len(same):
        return f"{finished} of {len(same)} finished"
    states = sorted({run.state for run in same})
    if len(same) == 1 and states == ["finished"] and same[0].done != same[0].of:
        return f"finished, early after {same[0].done} of {same[0].of}"
    if len(same) == 1 and states[0] in ("stopped", "running") and same[0].of is not None:
        return f"{states[0]}, {same[0].done or 0} of {same[0].of}"
    return ", ".join(states)
