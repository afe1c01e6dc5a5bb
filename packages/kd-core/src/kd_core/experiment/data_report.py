"""Reports of the commands that check a data set: read every image, print the result."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from rich.progress import track
from rich.table import Table

from kd_core.errors import UserError
from kd_core.runtime.console import err, out

_SHOWN = 5  # entries of a list on the terminal; the report itself has all

Item = TypeVar("Item")
Problem = TypeVar("Problem")


def check_workers(workers: int) -> None:
    """Reject a number of threads below 1.

    Raises:
        UserError: If it is not positive.
    """
    if workers < 1:
        raise UserError(f"--workers {workers}: wanted a number of threads, at least 1")


def read_all(
    items: Sequence[Item], read: Callable[[Item], Problem], workers: int
) -> Iterator[tuple[Item, Problem]]:
    """Read all images of a set in threads, with a progress bar; yield each with its problem.

    Args:
        items: One for each image.
        read: Called with an item; returns what is wrong with its image.
        workers: Threads.
    """
    with ThreadPoolExecutor(workers) as pool:
        problems = pool.map(read, items)
        shown = track(problems, "images", total=len(items), console=err, transient=True)
        yield from zip(items, shown, strict=True)


def print_report(
    report: Mapping[str, Any],
    counts: Mapping[str, int | None],
    unusable: Mapping[str, str],
    *,
    praise: str = "all usable",
) -> None:
    """Print a table of the contents of a set and its unusable parts, then the first examples.

    Args:
        report: Lists by the keys of `unusable`, and `usable`: whether all of them are empty. A dict
            in the place of a list says what is wrong with each entry.
        counts: Rows of the table by name; None is a number that is not known.
        unusable: Names of the parts of the report that make a set unusable.
        praise: Said of a usable one.
    """
    table = Table("", title="data set")
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(name, "unknown" if count is None else f"{count:,}")
    for key, name in unusable.items():
        count = len(report[key])
        table.add_row(name, f"{count:,}", style="red" if count else None)
    out.print(table)
    for key, name in unusable.items():
        if report[key]:
            out.print(f"{name}: {_first_of(report[key])}")
    if report["usable"]:
        out.print(praise)


def _first_of(found: Sequence[Any] | Mapping[Any, str]) -> str:
    entries = list(found)
    if isinstance(found, Mapping):
        entries = [f"{name} ({problem})" for name, problem in found.items()]
    more = f", and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(str(entry) for entry in entries[:_SHOWN]) + more
