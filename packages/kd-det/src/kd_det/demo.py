"""The demo: distillation into a small detector, in minutes and offline."""

import hashlib
import logging
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from kd_core.config.folder import configs_folder
from kd_core.errors import UserError
from kd_core.experiment import report
from kd_core.experiment.results import FILE as RESULT
from kd_core.experiment.results import read_result
from kd_core.experiment.seeds import keep_summary, look, read_results, seed_folder
from kd_core.files.checkpoint import save_json, save_text
from kd_core.files.claim import claimed_unless_made
from kd_core.files.workdir import run_folder
from kd_core.runtime import json_lines
from kd_core.runtime.console import out

from kd_det.config import read_config
from kd_det.demo_runs import side_by_side
from kd_det.demo_summary import METRICS, draw_curves, draw_examples, gain, table
from kd_det.deploy import categories
from kd_det.resume import identity
from kd_det.running.metrics_file import FILE as METRICS_FILE
from kd_det.running.metrics_file import read_records
from kd_det.running.progress import ReportProgress, Show
from kd_det.running.result import peak_memory
from kd_det.synthetic.shapes import register_shapes
from kd_det.trainer import DistillationTrainer, student_of

CONFIGS = configs_folder() / "demo"
STUDENTS = {"student": "det_student.yaml", "student + FitNet": "det_distilled.yaml"}
EVALUATIONS = 2  # per run, with the last one
SEEDS = (0, 1, 2)


def main(args: Namespace) -> None:
    """Train a teacher and a student beside it, then the same student with it, for every seed.

    For each seed, both students start from the same weights and get the same images. Ends with a
    table, `predictions.png` and `demo.json`.

    Args:
        args: The tool's arguments; trailing KEY VALUE pairs change both students, not the teacher.
    """
    register_shapes()
    with run_folder(args.work_dir, ["det_demo"], resume=args.resume) as work_dir:
        compare(args, work_dir)


def compare(args: Namespace, work_dir: Path) -> None:
    """Train and show all rows of the demo, in a claimed folder; see `main`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = ["MODEL.DEVICE", device, *args.opts]
    students = {name: read_config(CONFIGS / file, options) for name, file in STUDENTS.items()}
    teacher_cfg = read_config(CONFIGS / "det_teacher.yaml", ["MODEL.DEVICE", device])
    recipe = hashlib.sha256(teacher_cfg.dump().encode()).hexdigest()[:12]
    teacher_folder = work_dir.parent / "teachers" / f"shapes-{recipe}"
    seeds: Sequence[int] = args.seeds or SEEDS
    places = {name: work_dir / name.replace(" + ", "_") for name in students}
    for name, cfg in students.items():  # before the teacher is trained
        if cfg.KD.TERMS:
            cfg.KD.TEACHER.WEIGHTS = str(teacher_folder / "model_final.pth")
        look(partial(finished, cfg), seeds, places[name])
    with side_by_side(device, register_shapes) as results_of:
        first = [partial(make_teacher, teacher_cfg, teacher_folder)]
        for name, cfg in students.items():
            one = partial(run_once, cfg, name)
            runs = [partial(one, seed, seed_folder(places[name], seed, seeds)) for seed in seeds]
            results_of([*first, *runs])  # the teacher beside the student alone
            first = []
    teacher = read_result(teacher_folder)
    results = {name: read_results(folder, seeds) for name, folder in places.items()}
    summaries = {name: keep_summary(found, seeds, places[name]) for name, found in results.items()}
    scores = {"teacher": teacher, "students": summaries}
    save_json(scores, work_dir / "demo.json")
    json_lines.say("result", work_dir=str(work_dir), **scores)
    out.print(table(teacher, summaries, results))
    out.print(gain(*results.values()))
    length = next(iter(students.values())).SOLVER.MAX_ITER
    draw_curves(places, seeds, length, work_dir / "curves.png")
    out.print(f"curves: {work_dir / 'curves.png'}")
    folders = {name: seed_folder(folder, seeds[0], seeds) for name, folder in places.items()}
    folders["teacher"] = teacher_folder
    draw_examples({"teacher": teacher_cfg, **students}, folders, work_dir / "predictions.png")
    out.print(f"predictions: {work_dir / 'predictions.png'}")


def run_once(cfg: CfgNode, name: str, seed: int, folder: Path, show: Show) -> dict[str, Any]:
    """Return the result of a run; train it first, unless it is finished."""
    return finished(cfg, seed, folder) or run(cfg, name, seed, folder, show)


def run(cfg: CfgNode, name: str, seed: int, folder: Path, show: Show) -> dict[str, Any]:
    """Train one detector, or resume it from its folder; return and write its result."""
    cfg = placed(cfg, seed, folder)
    identity.check(cfg)
    identity.keep(cfg)
    categories.keep(cfg)
    save_text(cfg.dump(), folder / "config.yaml")  # as Detectron2's tools do
    _log_to(folder / "log.txt")
    seed_all_rng(seed)
    trainer = DistillationTrainer(cfg)
    trainer.resume_or_load(resume=True)
    label = f"{name}, seed {seed}"
    trainer.register_hooks([ReportProgress(label, torch.device(cfg.MODEL.DEVICE), show)])
    began = time.perf_counter()
    with (folder / "log.txt").open("a", encoding="utf-8") as file, redirect_stdout(file):
        trainer.train()  # pycocotools prints
    scores = evaluations(folder / METRICS_FILE, cfg.SOLVER.MAX_ITER)
    best = max(scores, key=lambda one: one["AP50"])
    result = {
        "seed": seed,
        "metric": "AP50",
        "last": scores[-1],
        "best": {**best, "chosen_on": "test data"},
        "student_parameters": report.parameter_count(student_of(trainer.model)),
        "train_seconds": round(time.perf_counter() - began, 2),
        "peak_memory": peak_memory(trainer),
        "environment": report.environment(torch.device(cfg.MODEL.DEVICE)),
        "made_by": identity.digest_of(cfg),
    }
    save_json(result, folder / "result.json")
    return result


def make_teacher(cfg: CfgNode, folder: Path, show: Show) -> dict[str, Any]:
    """Return the teacher's result; train it first, unless another run has done or does so."""

    def is_made() -> bool:
        return finished(cfg, 0, folder) is not None

    with claimed_unless_made(folder / RESULT, "training of the teacher", is_made) as to_make:
        if to_make:
            return run(cfg, "teacher", 0, folder, show)
    return read_result(folder)


def placed(cfg: CfgNode, seed: int, folder: Path) -> CfgNode:
    """Return the config of a run with a seed in a folder."""
    cfg = cfg.clone()
    cfg.merge_from_list(["SEED", seed, "OUTPUT_DIR", str(folder)])
    cfg.merge_from_list(["TEST.EVAL_PERIOD", max(cfg.SOLVER.MAX_ITER // EVALUATIONS, 1)])
    return cfg


def finished(cfg: CfgNode, seed: int, folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run in a folder; reject that of another config."""
    return identity.finished(placed(cfg, seed, folder))


def evaluations(file: Path, length: int) -> list[dict[str, float]]:
    """Return iteration and APs of every evaluation in Detectron2's log of a run of this length."""
    found = {}
    for record in read_records(file.parent, length):
        if "bbox/AP" in record:
            # NaN where there was no prediction.
            scores = {name: np.nan_to_num(record[f"bbox/{name}"]).item() for name in METRICS}
            found[record["iteration"]] = {"iteration": record["iteration"], **scores}
    if length not in found:
        raise UserError(f"{file} has no evaluation at the end; move {file.parent} elsewhere")
    return [found[iteration] for iteration in sorted(found)]


def _log_to(file: Path) -> None:
    """Send Detectron2's messages to a file only, not to the terminal."""
    for name in ("detectron2", "fvcore"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        for handler in logger.handlers:
            handler.close()
        handler = logging.FileHandler(file)
        handler.setFormatter(logging.Formatter("[%(asctime)s %(name)s]: %(message)s"))
        logger.handlers = [handler]
