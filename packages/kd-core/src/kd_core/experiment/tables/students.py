"""Size and latency of a comparison's students, beside their results."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kd_core.errors import UserError
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.report import cpu_name
from kd_core.experiment.tables.rows import Results
from kd_core.experiment.tables.table import Cell, Column, Table
from kd_core.files.artifacts import FILE as STUDENT
from kd_core.files.checkpoint import load_json
from kd_core.networks.latency import Plan, Timed, measure
from kd_core.runtime.console import err

FILE = "latency.json"


class Key(NamedTuple):
    """A student as it is measured: the row, and what runs it."""

    label: str
    runtime: str


def folder_of(run: Mapping[str, Any], work_dir: Path) -> Path | None:
    """Return the folder of a run of a table; None if the table names none inside its own."""
    name = run.get("folder")
    path = PurePosixPath(name) if isinstance(name, str) and name else None
    outside = path is None or path.is_absolute() or ".." in path.parts
    return None if outside else work_dir / str(path)


def require_latency(adapter: TaskAdapter) -> None:
    """Reject `--latency` before any work, if a task does not say what is deployed."""
    if type(adapter).deployed is TaskAdapter.deployed:
        raise UserError(
            f"--latency: {type(adapter).__name__} does not say what of a finished run is deployed; "
            "write its `deployed`, or leave --latency out"
        )


def read_latencies(file: Path) -> dict[str, Any]:
    """Return what `measure_students` found before; nothing if there is no file.

    Raises:
        UserError: If it is damaged.
    """
    remedy = "move it elsewhere, and --latency measures again"
    return load_json(file, remedy=remedy) if file.exists() else {}


def measure_students(
    adapter: TaskAdapter, results: Results, work_dir: Path, plan: Plan
) -> dict[str, Any]:
    """Measure one student of every row, all in turns in one run.

    Args:
        adapter: Of the task.
        results: Of every row; its first run's student is measured.
        work_dir: Folder of the table.
        plan: How to measure.

    Returns:
        What `latency.json` has: `processor`, `threads`, and `rows` by label.
    """
    timed: dict[Key, Timed] = {}
    rows: dict[str, dict[str, Any]] = {}
    for label, runs in results.items():
        folder = folder_of(runs[0], work_dir)
        if folder is None or not (folder / STUDENT).is_file():
            err.print(f"latency: {label}: its first run has no {STUDENT}")
            continue
        try:
            students = adapter.deployed(folder, plan.thread_count)
        except UserError as error:
            err.print(f"latency: {label} is not measured: {error}")
            continue
        timed |= {Key(label, runtime): one for runtime, one in students.items()}
        rows[label] = {
            "folder": runs[0]["folder"],
            "bytes": (folder / STUDENT).stat().st_size,
            "parameters": runs[0].get("student_parameters"),
            "latency_ms": {},
        }
    for key, found in measure(timed, plan).items():
        of_row = {str(size): latency._asdict() for size, latency in found.items()}
        rows[key.label]["latency_ms"][key.runtime] = of_row
    return {"processor": cpu_name(), "threads": plan.thread_count, "rows": rows}


def with_latency(table: Table, results: Results, measured: Mapping[str, Any]) -> Table:
    """Return a table with columns of size and latency, as far as they were measured."""
    rows = {
        label: found
        for label, found in measured.get("rows", {}).items()
        if found["folder"] in [run.get("folder") for run in results.get(label, [])]
    }
    if not rows:
        return table
    kinds = list(dict.fromkeys(kind for found in rows.values() for kind in _kinds(found)))
    columns = [
        Column("parameters", ("parameters",)),
        Column("file, MB", (f"{STUDENT}, bytes",)),
        *(_column(runtime, size) for runtime, size in kinds),
    ]
    cells = [_cells(rows.get(label), kinds) for label in results]
    threads = measured["threads"]
    note = (
        f"latency: on the CPU ({measured['processor']}), {threads} thread{'s' * (threads > 1)}, "
        "all rows measured in turns, by the student of the row's first seed"
    )
    return Table(
        [*table.columns, *columns],
        [[*before, *own] for before, own in zip(table.rows, cells, strict=True)],
        [*table.notes, note],
    )


def _kinds(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for runtime, sizes in found["latency_ms"].items():
        yield from ((runtime, size) for size in sizes)


def _column(runtime: str, size: str) -> Column:
    name = f"{runtime}, batch {size}"
    return Column(f"{name}: p50 / p95, ms", (f"{name}: p50, ms", f"{name}: p95, ms"))


def _cells(found: Mapping[str, Any] | None, kinds: Sequence[tuple[str, str]]) -> list[Cell]:
    if found is None:
        return [Cell("", (None,)), Cell("", (None,)), *(Cell("", (None, None)) for _ in kinds)]
    count, size = found["parameters"], found["bytes"]
    cells = [
        Cell("" if count is None else f"{count:,}", (count,)),
        Cell(f"{size / 1e6:.2f}", (size,)),
    ]
    for runtime, batch in kinds:
        one = found["latency_ms"].get(runtime, {}).get(batch)
        times = (one["p50"], one["p95"]) if one else (None, None)
        cells.append(Cell(f"{one['p50']:.2f} / {one['p95']:.2f}" if one else "", times))
    return cells
