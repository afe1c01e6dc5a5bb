"""A demo of distillation: a student alone, then a teacher, then the same student with it."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from kd_core.errors import UserError
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.cli import parse_options
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.results import read_result
from kd_core.experiment.runner import Runner
from kd_core.experiment.seeds import look, repeat, text
from kd_core.experiment.spec import Experiment
from kd_core.experiment.teachers import teacher_folder, unfinished
from kd_core.files.checkpoint import save_json
from kd_core.files.workdir import run_folder
from kd_core.runtime import distributed, json_lines
from kd_core.runtime.console import err

STUDENT = "student"


@dataclass
class Comparison:
    """What a demo trained.

    Attributes:
        work_dir: Folder of the runs, with `demo.json`.
        seeds: Those of the students.
        teacher: The teacher's result, see `kd_core.experiment.run.run`.
        students: Summaries by label, see `kd_core.experiment.seeds.repeat`.
        folders: Where the runs of each label are; of the teacher, its own.
    """

    work_dir: Path
    seeds: Sequence[int]
    teacher: dict[str, Any]
    students: dict[str, dict[str, Any]]
    folders: dict[str, Path]

    def table(self, title: str, metrics: dict[str, str]) -> Table:
        """Return the last epoch's metrics, mean ± sd, whose columns are named by the dict."""
        count = len(self.seeds)
        title = f"{title}, last epoch, {count} seed{'s' * (count > 1)}"
        table = Table("", *metrics.values(), "parameters", "seconds a run", title=title)
        for name, run in {"teacher": self.teacher, **self.students}.items():
            last = run["last"]
            cells = [
                text(last[metric]) if name in self.students else f"{last[metric]:.2f}"
                for metric in metrics
            ]
            table.add_row(
                name, *cells, f"{run['student_parameters']:,}", f"{run['train_seconds']:.1f}"
            )
        return table


@contextmanager
def compare(
    adapter: TaskAdapter,
    args: Namespace,
    device: torch.device,
    *,
    name: str,
    method: str,
    seeds: Sequence[int],
) -> Iterator[Comparison]:
    """Train a student, then a teacher, then the same student with it, over several seeds.

    Both students share initialisation, data order and augmentation in every seed. The folder is
    owned inside the block, where pictures of the runs can be added.

    Args:
        adapter: Its demo config is the distilled student.
        args: The tool's arguments; its options change both students; those of `teacher`, such as
            `teacher.trainer.epochs`, change the teacher.
        device: Where everything runs.
        name: Of the demo's folder in `runs`.
        method: What distils, for the label; its lower-case form is the folder.
        seeds: Where the arguments name none.
    """
    if args.eval_only or args.save_outputs or args.share_teacher or distributed.is_distributed():
        raise UserError(
            "the demo takes no --eval-only, --save-outputs, --share-teacher or torchrun; name a "
            "CONFIG"
        )
    assert adapter.demo_config is not None, "a task with a demo has its config"
    distilled = read_experiment(adapter, adapter.demo_config, parse_options(args.cfg_options))
    alone = replace(
        distilled.without_teachers(), terms={}, distiller=replace(distilled.distiller, arguments={})
    )
    seeds = args.seeds or seeds
    configs = {STUDENT: alone, f"{STUDENT} + {method}": distilled}
    with run_folder(args.work_dir, [name], resume=args.resume) as work_dir:
        folders = dict(zip(configs, (work_dir / STUDENT, work_dir / method.lower()), strict=True))
        students, runner = {}, Runner(adapter, device, work_dir.parent)
        for label, config in configs.items():  # before any of them is trained
            look(partial(runner.finished, config), seeds, folders[label])
        shown = " ".join(map(str, seeds))
        for label, config in configs.items():
            if config is distilled:
                _train_teacher(runner, config)
            place = "1 of 3: student alone" if config is alone else f"3 of 3: {label}"
            err.print(f"{place}, seed{'s' * (len(seeds) > 1)} {shown}")
            one = partial(runner.train_seed, config, resume=args.resume)
            finished = partial(runner.finished, config)
            students[label] = repeat(one, seeds, folders[label], finished=finished)
        teacher_run = distilled.teachers["teacher"].experiment
        assert teacher_run is not None, "a demo's teacher is trained first"
        folder = folders["teacher"] = teacher_folder(teacher_run, work_dir.parent / "teachers")
        teacher = read_result(folder)
        scores = {"teacher": teacher, "students": students}
        save_json(scores, work_dir / "demo.json")
        json_lines.say("result", work_dir=str(work_dir), **scores)
        yield Comparison(work_dir, seeds, teacher, students, folders)


def _train_teacher(runner: Runner, distilled: Experiment) -> None:
    """Train the demo's teacher, unless an earlier run has done so."""
    missing = unfinished(distilled.teachers, runner.shared)
    err.print("2 of 3: teacher" if missing else "2 of 3: teacher, trained before")
    if missing:  # building what learns from it trains it
        runner.build(distilled, distilled.seed)
