"""Runner: trains experiments of one task on one device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kd_core.config.reading import save_config
from kd_core.data.split_loader import data_fingerprint
from kd_core.experiment import identity, report
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.builder import BuiltExperiment, build_data, build_experiment
from kd_core.experiment.phases import run_phases
from kd_core.experiment.run import build_trainer, resume_training, run
from kd_core.experiment.spec import Experiment
from kd_core.experiment.teachers import (
    build_teachers,
    is_of_teachers,
    phase_place,
    recorded,
    teacher_scores,
    unfinished,
)
from kd_core.experiment.trial import try_out
from kd_core.files import checkpoint
from kd_core.networks.task import network_of
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.runtime.data_parallel import require_synced_batchnorm
from kd_core.runtime.failures import during_run, memory_explained, memory_remedy
from kd_core.training.trainer import Trainer


@dataclass
class Prepared:
    """A run that is ready to be trained.

    Args:
        built: Its parts.
        trainer: Around them.
        facts: What its result will say beside its scores.
    """

    built: BuiltExperiment
    trainer: Trainer
    facts: dict[str, Any]


class Runner:
    """Trains experiments of one task on one device.

    Args:
        adapter: Of the task.
        device: Where everything runs.
        folder: Has, or gets, the folder `teachers` of what the runs have in common.
    """

    def __init__(self, adapter: TaskAdapter, device: torch.device, folder: Path) -> None:
        self.adapter, self.device, self.shared = adapter, device, folder / "teachers"

    def train_seed(
        self, experiment: Experiment, seed: int, work_dir: Path, *, resume: bool
    ) -> dict[str, Any]:
        """Run all phases with one seed, in one folder, and return the last one's result.

        Args:
            experiment: With its phases.
            seed: Of initialisation and dropout, and of the data unless it has `data_seed`.
            work_dir: Folder of this run.
            resume: Continue what is in the folder.
        """
        with self.begun(experiment, seed, work_dir):
            last = self.run_earlier_phases(experiment, seed, work_dir)
            return self._train_phase(last, work_dir, seed=seed, resume=resume)

    def finished(self, experiment: Experiment, seed: int, work_dir: Path) -> dict[str, Any] | None:
        """Return the result that this run and seed have in a folder; None if they have none yet.

        Raises:
            UserError: If another config made what is there, or it is damaged.
        """
        made_by = recorded(experiment, seed)
        may_have_moved = identity.check(work_dir, made_by)
        result = identity.finished(work_dir, made_by)
        # Where it moved for one process all compare, since they wait for one another there.
        if result is not None and any(distributed.values_of_all(may_have_moved)):
            data = self._data(experiment, seed, torch.device("cpu"))
            identity.check_data(work_dir, data_fingerprint(data))
        return result

    @contextmanager
    def begun(self, experiment: Experiment, seed: int, work_dir: Path) -> Iterator[None]:
        """Write down what makes a run, before anything else is in its folder.

        Raises:
            UserError: If another config made what is there, or these processes cannot run this one.
        """
        for phase in experiment.each_phase:
            asked = phase.trainer is not None and phase.trainer.get("sync_batchnorm")
            require_synced_batchnorm(bool(asked), self.device)
        made_by = recorded(experiment, seed)
        identity.check_config_of_all(made_by)
        identity.check(work_dir, made_by)
        with identity.begun(work_dir, made_by, self.adapter.about()):
            yield

    def run_earlier_phases(self, experiment: Experiment, seed: int, work_dir: Path) -> Experiment:
        """Run all phases of an experiment but the last, which is returned."""
        for later in experiment.without_products()[1:]:
            try_out(later, self.build(later, seed, untrained=True))

        def earlier(phase: Experiment, folder: Path) -> None:
            # What serves every student must not depend on the seed of the first.
            own_seed = 0 if is_of_teachers(phase) else seed
            self._train_phase(phase, folder, seed=own_seed, resume=True)

        place_of = partial(phase_place, work_dir, self.shared, seed)
        return run_phases(experiment, place_of, earlier)

    def prepare(
        self,
        experiment: Experiment,
        work_dir: Path,
        *,
        seed: int,
        like: Prepared | None = None,
        shared: bool = False,
    ) -> Prepared:
        """Build a run without phases, and write what is known of it before it starts.

        Args:
            experiment: Without phases.
            work_dir: Folder of the run.
            seed: See `train_seed`.
            like: Another run, whose data and teachers are taken.
            shared: Whether somebody else runs the teachers, for several students.
        """
        built = self.build(experiment, seed, like=like.built if like else None)
        data = data_fingerprint(built.data)
        identity.check_data_of_all(data)
        settings = experiment.training(self.shared)
        if shared:
            settings |= {"teacher_cache": False, "accelerate_teachers": False}
        trainer = build_trainer(built.parts, work_dir, **settings)
        known = like.facts["teachers"] if like else {}
        if built.teachers.keys() <= known.keys():
            scores = {name: known[name] for name in built.teachers}
        else:  # before anything is written: a teacher may be refused
            scores = teacher_scores(self.adapter, built, experiment)
        identity.check_data(work_dir, data)
        facts: dict[str, Any] = {"seed": seed, "data_seed": built.data.train.data_seed}
        facts["made_by"] = trainer.made_by = identity.digest_of(work_dir)
        facts["environment"] = report.environment(self.device)
        if distributed.rank() == 0:
            checkpoint.save_json(facts["environment"], work_dir / "environment.json")
            save_config({**experiment.plain(), "seed": seed}, work_dir / "config.py")
            print_tables(built)
        facts["teachers"] = scores
        return Prepared(built, trainer, facts)

    def build(
        self,
        experiment: Experiment,
        seed: int,
        *,
        untrained: bool = False,
        like: BuiltExperiment | None = None,
    ) -> BuiltExperiment:
        """Build what an experiment describes, training teachers first if need be.

        Args:
            experiment: Without phases.
            seed: Of initialisation and dropout.
            untrained: Neither load nor train the teachers' weights.
            like: Another built experiment, whose data and teachers are taken.
        """
        data = self._data(experiment, seed, self.device) if like is None else like.data
        put_together = partial(build_experiment, self.adapter, experiment, seed, self.device, data)
        specs = experiment.teachers
        if like is not None and specs.keys() <= like.teachers.keys():
            return put_together({name: like.teachers[name] for name in specs})

        def data_of(other: Experiment) -> Any:
            same = other.data == experiment.data
            return data if same else self._data(other, seed, torch.device("cpu"))

        get_teachers = partial(
            build_teachers, self.adapter, specs, seed, data, self.shared, self._train_teacher
        )
        if not untrained and unfinished(specs, self.shared):
            # With the classes of the teacher's own data, which may differ from the student's.
            tried = put_together(get_teachers(untrained=True, own_data=data_of))
            try_out(experiment, tried)
        return put_together(get_teachers(untrained=untrained))

    def _data(self, experiment: Experiment, seed: int, device: torch.device) -> Any:
        own = experiment.data_seed
        return build_data(experiment.data, seed if own is None else own, device)

    def _train_teacher(self, experiment: Experiment, folder: Path) -> None:
        # With a seed of its own: the teacher must not depend on which student came first.
        self.train_seed(experiment, experiment.seed, folder, resume=True)

    def _train_phase(
        self, experiment: Experiment, work_dir: Path, *, seed: int, resume: bool
    ) -> dict[str, Any]:
        memory = memory_of(experiment)
        with memory_explained(memory):
            ready = self.prepare(experiment, work_dir, seed=seed)
            if resume:
                resume_training(ready.trainer)  # no run has failed yet if it cannot
        with during_run(work_dir, seed, memory):
            return run(ready.trainer, ready.built.parts, ready.facts)


def memory_of(experiment: Experiment) -> str:
    """Return which options lower the memory of a run, for messages."""
    trainer, batch_size = experiment.training(), experiment.data.get("batch_size", "its default")
    return memory_remedy(batch_size, trainer.get("accumulate", 1), trainer.get("precision", "fp32"))


def print_tables(built: BuiltExperiment) -> None:
    """Print what is trained: networks and terms, and which images are not."""
    models = {"student": built.distiller.student, **built.teachers}
    image = built.sample["image"][:1]
    networks = {role: (network_of(m), m.prepare(image)) for role, m in models.items()}
    err.print(report.models_table(networks))
    if built.distiller.terms:
        err.print(report.terms_table(built.distiller))
    if built.note:
        err.print(built.note)
