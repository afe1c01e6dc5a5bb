"""Every method of detection on the demo's shapes, some seeds each: the table of docs/detection.md.

uv run benchmarks/det_table.py                           # an hour at most, on two cores
uv run benchmarks/det_table.py --only retinanet          # cells whose name contains this
uv run benchmarks/det_table.py --table                   # write the table, run nothing

A cell is one student with one seed. A finished one is not run again, and one that was stopped
resumes from its checkpoint. For each seed, all students of a network start from the same weights
and see the same images in the same order. Methods and their values: configs/det/methods.
When --minutes are over, no further cell is started.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import kd_det  # noqa: F401  before Detectron2
import torch
from cell_runs import add_options, in_process, run_groups, status_of
from detectron2.config import CfgNode
from kd_core.errors import UserError
from kd_core.experiment.report import environment
from kd_core.files.checkpoint import load_json, save_text
from kd_det import demo
from kd_det.config import read_config
from kd_det.synthetic.shapes import register_shapes
from pages import publish, spread

ROOT = Path(__file__).parents[1]
SHAPES, METHODS = Path(__file__).parent / "shapes", ROOT / "configs/det/methods"
RESULTS, PAGE = ROOT / "docs/results/detection.json", ROOT / "docs/detection.md"
TEACHER, ALONE = "teacher", "alone"
TABLE = {
    "faster_rcnn": {
        **{"fitnet": "fitnet_rcnn", "pkd": "pkd_rcnn", "cwd": "cwd", "fgd": "fgd_rcnn"},
        **{"mgd": "mgd_rcnn", "reviewkd": "reviewkd", "dkd": "dkd"},
    },
    "retinanet": {"crosskd": "crosskd", "bckd": "bckd"},
}
"""Files of configs/det/methods by network and by what the table calls them."""

NAMES = {"faster_rcnn": "Faster R-CNN", "retinanet": "RetinaNet"}


class Cell(NamedTuple):
    """A network, a method (or `teacher`, `alone`), a seed."""

    network: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.network}-{self.method}-{self.seed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print and write the table; return the status."""
    args = parse(argv)
    folder = Path(args.work_dir)

    def collect() -> dict[str, Any]:
        register_shapes()  # drawn once, before processes need it
        run_missing(folder, args)
        return collected(folder, args)

    def work() -> None:
        if args.cell:
            network, method, seed = args.cell
            run(Cell(network, method, int(seed)), folder, args.options)
            return
        whole = not (args.only or args.options)
        gather = None if args.table else collect
        publish(gather, table, RESULTS, PAGE, "benchmarks/det_table.py", whole=whole)

    return status_of(work)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, "runs/det_table", 60)
    parser.add_argument("--options", nargs="+", default=[], help="KEY VALUE of all configs")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def cells(seeds: Sequence[int]) -> list[Cell]:
    """Return all cells, teachers first."""
    students = [
        Cell(network, method, seed)
        for network, methods in TABLE.items()
        for seed in seeds
        for method in (ALONE, *methods)
    ]
    return [Cell(network, TEACHER, 0) for network in TABLE] + students


def config(cell: Cell, folder: Path, options: Sequence[str]) -> CfgNode:
    """Return the config of a cell; that of a distilled student is written to the folder."""
    kind = TEACHER if cell.method == TEACHER else "student"
    file = SHAPES / f"{cell.network}_{kind}.yaml"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    values = ["MODEL.DEVICE", device, *options]
    if cell.method in (TEACHER, ALONE):
        return read_config(file, values)
    method = METHODS / f"{TABLE[cell.network][cell.method]}.yaml"
    both = folder / "configs" / f"{cell.network}_{cell.method}.yaml"
    save_text(f"_BASE_: [{file.resolve()}, {method.resolve()}]\n", both)
    teacher = folder / str(Cell(cell.network, TEACHER, 0)) / "model_final.pth"
    known = ["KD.TEACHER.CONFIG", str(SHAPES / f"{cell.network}_teacher.yaml")]
    return read_config(both, [*values, *known, "KD.TEACHER.WEIGHTS", str(teacher)])


def run(cell: Cell, folder: Path, options: Sequence[str]) -> None:
    """Train a cell, or resume it; its folder has the result."""
    register_shapes()
    demo.run(config(cell, folder, options), str(cell), cell.seed, folder / str(cell))


def run_missing(folder: Path, args: argparse.Namespace) -> None:
    """Run the cells that have no result, teachers first."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    wanted = [cell for cell in cells(args.seeds) if args.only in str(cell)]
    networks = {cell.network for cell in wanted}
    teachers = [Cell(network, TEACHER, 0) for network in TABLE if network in networks]
    students = [cell for cell in wanted if cell.method != TEACHER]

    def start(cell: Cell) -> int:
        if not args.jobs:
            run(cell, folder, args.options)
            return 0
        command = [__file__, "--work-dir", str(folder)]
        command += ["--cell", cell.network, cell.method, str(cell.seed)]
        command += ["--options", *args.options] if args.options else []
        return in_process(command, folder / "logs" / f"{cell}.txt", args.jobs)

    missing = [
        [cell for cell in group if not (folder / str(cell) / "result.json").is_file()]
        for group in (teachers, students)
    ]
    run_groups([(group, args.jobs) for group in missing], start, str, args.minutes)


def collected(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what all finished cells measured, with the machine."""
    found = []
    for cell in cells(args.seeds):
        file = folder / str(cell) / "result.json"
        if args.only in str(cell) and file.is_file():
            result = load_json(file)
            kept = {key: result[key] for key in ("last", "best", "train_seconds")}
            size = result["student_parameters"]
            found.append({**cell._asdict(), **kept, "parameters": size})
    if not found:
        raise UserError(f"{folder}: no cell is finished")
    machine = environment(torch.device("cpu"))
    return {"machine": {key: machine[key] for key in ("device", "commit")}, "cells": found}


def table(results: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| network | method | seeds | AP | AP50 | AP50, best | gain in AP50 by seed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network in TABLE:
        of_network = [cell for cell in results["cells"] if cell["network"] == network]
        alone = {c["seed"]: c["last"]["AP50"] for c in of_network if c["method"] == ALONE}
        for method in dict.fromkeys(cell["method"] for cell in of_network):
            group = [cell for cell in of_network if cell["method"] == method]
            lines.append(row(NAMES[network], method, group, alone))
    machine = results["machine"]
    lines += [
        "",
        f"Mean ± sd over seeds, last iteration; `best` is the best of {demo.EVALUATIONS} "
        f"evaluations of each run, chosen on the test images. {machine['device']}, commit "
        f"{machine['commit']}, two runs side by side of one thread each.",
    ]
    return "\n".join(lines)


def row(network: str, method: str, group: list[dict[str, Any]], alone: dict[int, float]) -> str:
    """Return the line of a method."""
    pairs = [(c["last"]["AP50"], alone[c["seed"]]) for c in group if c["seed"] in alone]
    compared = method not in (TEACHER, ALONE)
    gains = ", ".join(f"{own - other:+.1f}" for own, other in pairs) if compared else ""
    values = [
        spread([cell["last"]["AP"] for cell in group]),
        spread([cell["last"]["AP50"] for cell in group]),
        spread([cell["best"]["AP50"] for cell in group]),
        gains,
        f"{mean(cell['train_seconds'] for cell in group):.0f}",
    ]
    return f"| {network} | {method} | {len(group)} | " + " | ".join(values) + " |"


if __name__ == "__main__":
    sys.exit(main())
