"""Runs that learn together: one pass over data and teachers for all their students."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from kd_core.data.loader import Loader
from kd_core.errors import UserError
from kd_core.experiment.run import finish, resume_training
from kd_core.experiment.runner import Prepared, Runner, memory_of
from kd_core.experiment.spec import RANDOM, Experiment, TeacherSpec
from kd_core.networks.task import Task
from kd_core.runtime.failures import during_run
from kd_core.runtime.seed import rng_state
from kd_core.training.shared_teacher import (
    SharedLoader,
    Turn,
    WithTeachers,
    shared_teachers,
    train_in_turns,
)
from kd_core.training.targets.choice import with_cache

Run = tuple[Experiment, int, Path]
"""An experiment, a seed, and the folder of its run."""

_ALIKE = {"precision": "fp32", "accumulate": 1, "teacher_cache": False}
"""Settings of the trainer that students on one pass have in common, with their defaults."""


def train_sharing_teachers(runner: Runner, runs: Sequence[Run], *, resume: bool) -> None:
    """Train several students in turns, each as if alone, on the same batches and targets.

    The results are those of separate runs with these seeds and the same `data_seed`. Phases before
    the last, and a teacher's recipe, run one after the other first.

    Args:
        runner: Trains one.
        runs: Those that are finished already are left alone.
        resume: Continue what is in the folders.

    Raises:
        UserError: If the runs differ in data, teachers or precision, or no `data_seed` is set; once
            all others are finished, if one has failed.
    """
    check_shareable([experiment for experiment, _, _ in runs])
    left = [run for run in runs if runner.finished(*run) is None]
    with ExitStack() as folders:
        for run in left:
            folders.enter_context(runner.begun(*run))
        _train(runner, left, resume=resume)


def _train(runner: Runner, left: Sequence[Run], *, resume: bool) -> None:
    last = [(runner.run_earlier_phases(*run), *run[1:]) for run in left]
    last.sort(key=lambda run: not run[0].teachers)  # whose teacher the others take goes first
    ready: list[Prepared] = []
    turns: list[Turn] = []
    for experiment, seed, folder in last:
        like = ready[0] if ready else None
        ready.append(runner.prepare(experiment, folder, seed=seed, like=like, shared=True))
        if resume:
            resume_training(ready[-1].trainer)
        reporting = during_run(folder, seed, memory_of(experiment))
        turns.append(Turn(ready[-1].trainer, _steps(ready[-1], reporting), rng_state()))
    if ready:
        _share(ready, last[0][0].training(), runner.shared)
    train_in_turns(turns)


def check_shareable(experiments: Sequence[Experiment]) -> None:
    """Reject experiments whose students cannot use the same batches and targets."""
    first, *others = experiments
    if first.data_seed is None:
        raise UserError(
            "--share-teacher: students on one pass over the data see the same order and "
            "augmentation; say so with data_seed=0 (their standard deviation is then that of "
            "initialisation)"
        )
    known = next((each.teachers for each in experiments if each.teachers), {})
    if any(teacher.weights == RANDOM for teacher in known.values()):
        raise UserError("--share-teacher: random teachers differ with the seed; give them weights")
    for other in others:
        if differ := _differences(first, other, known):
            raise UserError(
                f"--share-teacher: {differ[0]} is not the same in all runs, so they share no pass; "
                "leave --share-teacher out, or choose rows (--only) that agree"
            )


def _differences(
    first: Experiment, other: Experiment, teachers: Mapping[str, TeacherSpec]
) -> list[str]:
    """Return what must be the same in runs that share a pass, and differs between two."""
    differ = [n for n in ("data", "data_seed") if getattr(first, n) != getattr(other, n)]
    settings, others = first.training(), other.training()
    differ += [
        f"trainer.{name}"
        for name, default in _ALIKE.items()
        if settings.get(name, default) != others.get(name, default)
    ]
    return differ + (["teacher"] if other.teachers not in ({}, teachers) else [])


def _steps(ready: Prepared, reporting: AbstractContextManager[None]) -> Iterator[None]:
    with reporting:
        yield from ready.trainer.steps()
        finish(ready.trainer, ready.built.parts, ready.facts)


def _share(ready: Sequence[Prepared], settings: Mapping[str, Any], folder: Path) -> None:
    """Put all trainers on one loader, whose batches have the teacher features."""
    distillers = [each.built.distiller for each in ready]
    for student in (distiller.student for distiller in distillers):
        if isinstance(student, Task) and student.changes_data:
            raise UserError(f"--share-teacher: {type(student).__name__} chooses its own samples")
    if len({len(each.built.parts.loader) for each in ready}) > 1:
        raise UserError(
            "--share-teacher: some of these students cannot be trained on a last batch of one "
            "image, so their epochs differ; set data.drop_last=True"
        )
    precision = settings.get("precision", "fp32")
    teachers = shared_teachers(distillers, ready[0].built.sample, precision)
    loader: Loader = ready[0].built.parts.loader
    cache = settings.get("teacher_cache", False)
    if cache is not False:
        epochs = settings["epochs"]
        loader = with_cache(
            loader, distillers, teachers, cache, beside=folder, precision=precision, epochs=epochs
        )
    elif teachers:
        loader = WithTeachers(loader, teachers, precision=precision)
    shared = SharedLoader(loader, settings.get("accumulate", 1))
    for each in ready:
        each.trainer.loader = shared
