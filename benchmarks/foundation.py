"""Real ImageNet teachers, images without labels, a small student: what docs/foundation.md says.

uv sync --group teachers
KD_DATA=FOLDER uv run benchmarks/foundation.py                   # 75 minutes on two cores
KD_DATA=FOLDER uv run benchmarks/foundation.py --lightly FOLDER  # with lightly-train's distillation
uv run benchmarks/foundation.py --tiny --seeds 0                 # drawn images, random teachers
uv run benchmarks/foundation.py --table                          # write the table, run nothing

A cell is one student with one seed. Each writes its JSON when it is finished, and is not run again,
so a command that was stopped continues; a run that was stopped resumes from its checkpoint. All
arms see the same images equally often. What a teacher gives is stored by the first cells and
replayed by all others. When --minutes are over, no further cell is started.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from cell_runs import add_options, in_process, run_groups, status_of
from foundation_cells import Cells, Job
from foundation_plan import TINY, Plan
from foundation_table import table
from kd_core.errors import UserError, nearest
from kd_core.experiment.report import environment
from kd_core.files.checkpoint import load_json, save_json
from pages import publish

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results/foundation.json", ROOT / "docs/foundation.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print and write the tables; return the status."""
    args = parse(argv)

    def cells() -> Cells:
        found = Cells(plan_of(args), Path(args.work_dir), args.lightly)
        require_same_plan(found)
        return found

    def collect() -> dict[str, Any]:
        known = cells()
        run_missing(known, args)
        return collected(known)

    def work() -> int | None:
        if args.cell:
            return run_cell(cells(), (args.cell[0], args.cell[1]), args.seeds[0])
        whole = not (args.tiny or args.set or args.only)
        gather = None if args.table else collect
        publish(gather, table, RESULTS, PAGE, "benchmarks/foundation.py", whole=whole)
        return None

    return status_of(work)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, "runs/foundation", 90)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=NUMBER", help="fields of Plan")
    parser.add_argument("--lightly", help="folder where lightly-train is installed, to run it too")
    parser.add_argument("--tiny", action="store_true", help="drawn images, random teachers")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def plan_of(args: argparse.Namespace) -> Plan:
    """Return what all cells have in common."""
    plan = TINY if args.tiny else Plan()
    known = [field.name for field in fields(Plan) if field.name not in ("tiny", "shots")]
    for text in args.set:
        key, _, value = text.partition("=")
        if key not in known:
            raise UserError(f"--set {text}: there is no number {key!r}{nearest(key, known)}")
        if not value.isdecimal() or not int(value):
            raise UserError(f"--set {text}: wanted a whole number, at least 1")
        plan = replace(plan, **{key: int(value)})
    return plan


def require_same_plan(cells: Cells) -> None:
    """Reject a folder whose cells have another plan; they would not compare."""
    file, plan = cells.folder / "plan.json", asdict(cells.plan)
    plan["shots"] = list(cells.plan.shots)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_json(plan, file)
    kept = load_json(file)
    if wrong := [key for key in plan if kept.get(key) != plan[key]]:
        key = wrong[0]
        raise UserError(
            f"{file}: {key} is {kept.get(key)} there and {plan[key]} here; name another --work-dir"
        )


def run_missing(cells: Cells, args: argparse.Namespace) -> None:
    """Run the cells that have no result: those that store targets alone, then some at once."""
    wanted = [(job, seed) for seed in args.seeds for job in cells.jobs(once=seed == args.seeds[0])]
    wanted = [one for one in wanted if args.only in name_of(*one)]
    missing = [one for one in wanted if not file_of(cells, *one).is_file()]
    alone = [one for one in missing if one[0] in cells.first() and one[1] == args.seeds[0]]
    at_once = [one for one in missing if one not in alone]

    def run(one: tuple[Job, int]) -> int:
        return in_a_process(cells, one, args) if args.jobs else run_cell(cells, *one)

    groups = [(alone, 1), (at_once, args.jobs)]
    run_groups(groups, run, lambda one: name_of(*one), args.minutes)


def in_a_process(cells: Cells, one: tuple[Job, int], args: argparse.Namespace) -> int:
    """Run a cell in a process of its own; one that stores targets has all cores."""
    job, seed = one
    command = [__file__, "--cell", *job, "--seeds", str(seed)]
    command += ["--work-dir", str(cells.folder), *["--tiny"] * args.tiny]
    command += ["--lightly", args.lightly] if args.lightly else []
    command += ["--set", *args.set] if args.set else []
    log = cells.folder / "logs" / f"{name_of(*one)}.txt"
    return in_process(command, log, 1 if job in cells.first() else args.jobs)


def run_cell(cells: Cells, job: Job, seed: int) -> int:
    """Measure a cell and write its file."""
    found = cells.run(job, seed)
    file = file_of(cells, job, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_json(found, file)
    return 0


def collected(cells: Cells) -> dict[str, Any]:
    """Return what all finished cells measured, with the plan and the machine."""
    files = sorted((cells.folder / "cells").glob("*.json"))
    if not files:
        raise UserError(f"{cells.folder}: no cell is finished")
    found = [load_json(file) for file in files]
    order = {job: place for place, job in enumerate(cells.jobs())}
    found.sort(key=lambda cell: (order.get((cell["images"], cell["arm"]), 99), cell["seed"]))
    machine = environment(torch.device("cpu"))
    kept = {key: machine[key] for key in ("device", "packages", "commit")}
    return {"plan": load_json(cells.folder / "plan.json"), "machine": kept, "cells": found}


def name_of(job: Job, seed: int) -> str:
    """Return the name of a cell, as its files have it."""
    return f"{job[0]}-{job[1].replace(' ', '-')}-{seed}"


def file_of(cells: Cells, job: Job, seed: int) -> Path:
    """Return the file of a cell's result."""
    return cells.folder / "cells" / f"{name_of(job, seed)}.json"


if __name__ == "__main__":
    sys.exit(main())
