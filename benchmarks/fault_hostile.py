"""Files that run something if they are trusted, given to tools that read their kind."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from fault_detection import PROPOSALS, arguments
from fault_place import Need, Outcome, Place, Trial, undisturbed
from fault_process import Command, run
from fault_runs import DETECTION, RUNS
from kd_core.files.checkpoint import save_json

TESTS = Path(__file__).parents[1] / "tests"
PREFIX = "hostile "
WITH_TEACHER = "teacher by recipe"
_PICTURE = "configs/images/test/class0/0.png"


def _weights(file: Path) -> list[Command]:
    teacher = ("configs/kd.py", "--work-dir", "new", "--cfg-options", f"teacher.weights={file}")
    detector = (*DETECTION["RetinaNet"].command.arguments, "MODEL.WEIGHTS", str(file))
    return [
        Command("cls_train", teacher),
        Command("cls_train", ("configs/kd.py", "--eval-only", str(file))),
        Command("reid_train", ("configs/people.py", "--eval-only", str(file))),
        Command("det_train", detector),
        Command("det_train", ("--eval-only", *detector)),
    ]


def _metadata(file: Path) -> list[Command]:
    return [
        Command("cls_predict", (str(file), _PICTURE)),
        Command("cls_export", (str(file),)),
        Command("cls_analyse", ("reliability", "configs/alone.py", str(file))),
    ]


def _yaml(file: Path) -> list[Command]:
    return [Command("det_train", ("--config-file", str(file), "--dry-run"))]


def _config(file: Path) -> list[Command]:
    return [
        Command("cls_train", (str(file),)),
        Command("reid_train", (str(file), "--dry-run")),
        Command("cls_compare", ("configs/alone.py", "--rows", str(file))),
    ]


def _proposals(file: Path) -> list[Command]:
    lists = {f"DATASETS.PROPOSAL_FILES_{part}": f"('{file}',)" for part in ("TRAIN", "TEST")}
    return [Command("det_train", arguments("faster_rcnn_R_50_FPN", **PROPOSALS, **lists))]


def _results(folder: Path) -> list[Command]:
    return [Command("cls_train", ("configs/kd.py", "--work-dir", str(folder), "--resume"))]


def _teachers(folder: Path) -> list[Command]:
    return [RUNS[WITH_TEACHER].command]


COMMANDS: dict[str, Callable[[Path], list[Command]]] = {
    "weights": _weights,
    "metadata": _metadata,
    "yaml_nodes": _yaml,
    "bases": _config,
    "yaml_bases": _yaml,
    "proposals": _proposals,
    "results": _results,
    "teachers": _teachers,
}
"""By kind of `tests/hostile_files.py`, what reads such a file."""


def traps(kind: str) -> list[Any]:
    """Return the makers of a kind of hostile files."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    return importlib.import_module("hostile_files").KINDS[kind]


def needs(trial: Trial) -> list[Need]:
    """Return what a trial starts from: of teachers, the folder of a true one."""
    if trial.kind != f"{PREFIX}teachers":
        return []
    return [undisturbed(WITH_TEACHER, RUNS[WITH_TEACHER].command)]


def give(trial: Trial, place: Place, folder: Path) -> Outcome:
    """Make a hostile file, and give it to a tool that reads its kind."""
    kind = trial.kind.removeprefix(PREFIX)
    known = traps(kind)
    order = Random(f"{trial.seed} {kind}").sample(range(len(known)), len(known))
    trap = known[order[trial.number % len(known)]]
    canary = folder / "canary"
    file = trap.make(folder, canary)
    for written in file.glob("*.json"):  # with the checksum that the tool's own files have
        if isinstance(said := json.loads(written.read_text("utf-8")), dict):
            save_json(said, written)
    commands = COMMANDS[kind](file.relative_to(folder))
    command = commands[trial.number % len(commands)]
    if kind == "teachers":
        (name,) = (path.name for path in place.kept(WITH_TEACHER).glob("teachers/*"))
        (folder / "teachers").mkdir()
        file.rename(folder / "teachers" / name)
    ended = run(command, folder)
    ran = list(folder.glob(f"{canary.name}*"))
    what = f"{trap.name}, given to {command.tool}"
    if ran:
        return Outcome(what, False, f"it ran. {ended.said}")
    return Outcome(what, bool(ended.error), ended.error or ended.said)
