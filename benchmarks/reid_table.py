"""Teachers with and without a head on the drawn people, some seeds each: a table of docs/reid.md.

uv run benchmarks/reid_table.py                          # half an hour on two cores that are free
uv run benchmarks/reid_table.py --only crops             # cells whose name contains this
uv run benchmarks/reid_table.py --table                  # write the table, run nothing

A cell is one student with one seed. A finished one is not run again, and one that was stopped
resumes from its checkpoint. For each seed all students start from the same weights; those with
labels see the same images in the same order. The teacher is the demo's, trained once; without its
head it is the same file without the classifier. The crops are the training images in one folder.
When --minutes are over, no further cell is started.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from cell_runs import add_options, in_process, run_groups, status_of
from kd_core.experiment.report import environment
from kd_core.files.checkpoint import load_json, save, save_text
from kd_core.files.weights import read_state_dict
from kd_reid import train
from kd_reid.neck import CLASSIFIER
from kd_reid.synthetic.people import synthetic_people
from pages import publish, spread

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results/reid.json", ROOT / "docs/reid.md"
TEACHER, ALONE, HEADLESS = "teacher", "alone", "headless.pth"
REID, CLS = ROOT / "configs/reid/methods", ROOT / "configs/cls/methods"


class Row(NamedTuple):
    """What a student learns: without a teacher, of one with a head, or of one without."""

    title: str
    teacher: bool | None = None
    file: Path | None = None
    options: tuple[str, ...] = ()
    labels: bool = True  # whether the student has identities


ROWS = {
    ALONE: Row("identities alone"),
    "kd": Row("KD", True, REID / "kd.py", ("distiller.terms.kd.weight=4.0",)),
    "dkd": Row(
        "DKD",
        True,
        CLS / "dkd.py",
        ("distiller.terms.dkd.warmup_epochs=1", "distiller.terms.dkd.criterion.beta=2.0"),
    ),
    "rkd": Row("RKD", False, REID / "rkd.py"),
    "cosine": Row("cosine", False, REID / "cosine.py"),
    "similarity": Row("similarity", False, REID / "similarity.py"),
    "pkt": Row("PKT", False, REID / "pkt.py"),
    "sp": Row("SP", False, REID / "sp.py"),
    "crops": Row("cosine", False, REID / "cosine.py", labels=False),
}
"""By the name of the cells."""


class Cell(NamedTuple):
    """A row (or `teacher`) and a seed."""

    row: str
    seed: int

    def __str__(self) -> str:
        return f"{self.row}-{self.seed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print and write the table; return the status."""
    args = parse(argv)
    folder = Path(args.work_dir).absolute()

    def collect() -> dict[str, Any]:
        run_missing(folder, args)
        return collected(folder, args)

    def work() -> int | None:
        if args.cell:
            return train.main(arguments(Cell(args.cell[0], int(args.cell[1])), folder, args))
        whole = not (args.only or args.options)
        gather = None if args.table else collect
        publish(gather, table, RESULTS, PAGE, "benchmarks/reid_table.py", whole=whole)
        return None

    return status_of(work)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, "runs/reid_table", 25)
    parser.add_argument("--epochs", type=int, default=8, help="of a student")
    parser.add_argument("--options", nargs="+", default=[], help="KEY=VALUE of all configs")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def cells(seeds: Sequence[int]) -> list[Cell]:
    """Return the cells of the students, seed by seed: a table that is cut short has few seeds."""
    return [Cell(row, seed) for seed in seeds for row in ROWS]


def arguments(cell: Cell, folder: Path, args: argparse.Namespace) -> list[str]:
    """Return what the training tool gets for a cell; a config of its own is written."""
    if cell.row == TEACHER:
        files, options = [ROOT / "configs/demo/reid_teacher.py"], []
    else:
        row = ROWS[cell.row]
        own = folder / "configs" / f"{cell.row}.py"
        save_text(config(row, folder), own)
        files = [ROOT / "configs/demo/reid_student.py", own, *([row.file] if row.file else [])]
        options = [*row.options, f"trainer.epochs={args.epochs}", f"seed={cell.seed}"]
    options += args.options
    shown = ["--cfg-options", *options] if options else []
    return [*map(str, files), "--work-dir", str(folder / str(cell)), "--resume", *shown]


def config(row: Row, folder: Path) -> str:
    """Return the text of a config with the teacher of a row, and its crops."""
    lines = (
        []
        if row.labels
        else [f"data = {crops_node(folder)!r}", "student = dict(label_smoothing=0.0)"]
    )
    if row.teacher is not None:
        file = folder / str(Cell(TEACHER, 0)) / "student.pth" if row.teacher else folder / HEADLESS
        network = {"type": "kd_reid.models.build_model", "name": "resnet18"}
        lines.append(f"teacher = { ({'network': network, 'weights': str(file)})!r}")
    return "\n".join(lines) + "\n"


def crops_node(folder: Path) -> dict[str, Any]:
    """Return the data node of the crops."""
    return {
        "_delete_": True,
        "type": "kd_reid.unlabelled.crops",
        "root": str(folder / "crops"),
        "evaluate_on": str(synthetic_people()),
        "image_size": (64, 32),
        "batch_size": 32,
        "augment": [{"type": "kd_core.data.augment.CropFlip", "padding": 2}],
    }


def prepare(folder: Path) -> None:
    """Make what the students need of the teacher and of the people."""
    whole = read_state_dict(folder / str(Cell(TEACHER, 0)) / "student.pth")
    body = {name: value for name, value in whole.items() if not name.startswith(CLASSIFIER)}
    save(body, folder / HEADLESS)
    crops = folder / "crops"
    crops.mkdir(exist_ok=True)
    for number, file in enumerate(sorted((synthetic_people() / "bounding_box_train").iterdir())):
        link = crops / f"{number:05}{file.suffix}"
        if not link.is_symlink():
            link.symlink_to(file)


def run_missing(folder: Path, args: argparse.Namespace) -> None:
    """Run the cells that have no result, the teacher first."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    synthetic_people()  # once, before processes need it

    def start(cell: Cell) -> int:
        if not args.jobs:
            return train.main(arguments(cell, folder, args))
        command = [__file__, "--work-dir", str(folder), "--epochs", str(args.epochs)]
        command += ["--cell", cell.row, str(cell.seed)]
        command += ["--options", *args.options] if args.options else []
        return in_process(command, folder / "logs" / f"{cell}.txt", args.jobs)

    def missing(wanted: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in wanted if not (folder / str(cell) / "result.json").is_file()]

    run_groups([(missing([Cell(TEACHER, 0)]), args.jobs)], start, str, args.minutes)
    prepare(folder)
    wanted = [cell for cell in cells(args.seeds) if args.only in str(cell)]
    run_groups([(missing(wanted), args.jobs)], start, str, args.minutes)


def collected(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what all finished cells measured, with the machine."""
    found = []
    for cell in [Cell(TEACHER, 0), *cells(args.seeds)]:
        file = folder / str(cell) / "result.json"
        if (cell.row == TEACHER or args.only in str(cell)) and file.is_file():
            result = load_json(file)
            found.append(
                {**cell._asdict(), **{key: result[key] for key in ("last", "train_seconds")}}
            )
    machine = environment(torch.device("cpu"))
    kept = {key: machine[key] for key in ("device", "commit")}
    return {"machine": kept, "epochs": args.epochs, "cells": found}


def table(results: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    by_row: dict[str, list[dict[str, Any]]] = {}
    for cell in results["cells"]:
        by_row.setdefault(cell["row"], []).append(cell)
    alone = {cell["seed"]: cell["last"]["rank1"] for cell in by_row.get(ALONE, [])}
    lines = [
        "| teacher | learns | identities | seeds | rank-1 % | mAP % | gain in rank-1 by seed "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [line(name, by_row[name], alone) for name in (TEACHER, *ROWS) if name in by_row]
    machine = results["machine"]
    lines += [
        "",
        f"Mean ± sd over seeds, last of {results['epochs']} epochs; the first line is the teacher "
        f"itself. {machine['device']}, commit {machine['commit']}, two runs side by side of one "
        "thread each.",
    ]
    return "\n".join(lines)


def line(name: str, group: list[dict[str, Any]], alone: dict[int, float]) -> str:
    """Return the line of a row."""
    row = ROWS.get(name, Row("identities alone"))
    teacher = {None: "none", True: "with a head", False: "without a head"}[row.teacher]
    pairs = [(c["last"]["rank1"], alone[c["seed"]]) for c in group if c["seed"] in alone]
    compared = name not in (TEACHER, ALONE)
    values = [
        "is the teacher" if name == TEACHER else teacher,
        row.title,
        "yes" if row.labels else "no",
        str(len(group)),
        spread([cell["last"]["rank1"] for cell in group]),
        spread([cell["last"]["mAP"] for cell in group]),
        ", ".join(f"{own - other:+.1f}" for own, other in pairs) if compared else "",
        f"{mean(cell['train_seconds'] for cell in group):.0f}",
    ]
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    sys.exit(main())
