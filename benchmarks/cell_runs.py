"""Cells of a table, each run once and in a process of its own, some at once."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from kd_core.errors import RunError, UserError

Cell = TypeVar("Cell")


def add_options(parser: argparse.ArgumentParser, work_dir: str, minutes: float) -> None:
    """Add the options of every such table."""
    parser.add_argument("--work-dir", default=work_dir, help="runs, logs, and what they share")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="start no further cell after them"
    )
    parser.add_argument("--jobs", type=int, default=2, help="cells at once; 0 runs them in here")
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--table", action="store_true", help="write the tables and run nothing")


def status_of(work: Callable[[], int | None]) -> int:
    """Return the exit status of some work; what a user can cause is printed as one line."""
    try:
        return work() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2


def run_groups(
    groups: Sequence[tuple[Sequence[Cell], int]],
    run: Callable[[Cell], int],
    name: Callable[[Cell], str],
    minutes: float,
) -> None:
    """Run groups of cells one after the other, and tell which cell is started.

    Args:
        groups: Each has its cells, and how many of them run at once.
        run: Runs a cell; returns its exit status.
        name: Returns the name of a cell, for messages.
        minutes: After them no further cell is started.

    Raises:
        RunError: If cells failed; all others have been run.
    """
    cells = [cell for group, _ in groups for cell in group]
    end = time.monotonic() + 60 * minutes

    def start(cell: Cell) -> int:
        if time.monotonic() > end:
            return 0
        print(f"[{cells.index(cell) + 1}/{len(cells)}] {name(cell)}", flush=True)
        return run(cell)

    failed = []
    for group, at_once in groups:
        with ThreadPoolExecutor(max(1, at_once)) as pool:
            ends = zip(group, pool.map(start, group), strict=True)
            failed += [cell for cell, status in ends if status]
    if failed:
        raise RunError(f"{len(failed)} cells failed, the first is {name(failed[0])}")


def in_process(arguments: Sequence[str], log: Path, at_once: int) -> int:
    """Run python on arguments with a share of the cores; return the status.

    Args:
        arguments: A script and its arguments.
        log: File for its output; its name is that of the cell.
        at_once: Number of processes that share the cores.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    shared = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | shared,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        print(f"{log.stem} failed: {log}", file=sys.stderr, flush=True)
    return done.returncode
