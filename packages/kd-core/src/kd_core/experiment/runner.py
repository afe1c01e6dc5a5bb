"""Runner: trains configs of one task on one device."""

from collections.abc import Iterator, Mapping
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
from kd_core.experiment.spec import phase_configs, teacher_nodes
from kd_core.experiment.teachers import (
    build_teachers,
    is_of_teachers,
    phase_place,
    recorded,
    unfinished,
)
from kd_core.files import checkpoint
from kd_core.networks.task import network_of
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.runtime.failures import during_run, memory_remedy, memory_told
from kd_core.training.trainer import Trainer

Config = dict[str, Any]


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
    """Trains configs of one task on one device.

    Args:
        adapter: Of the task.
        device: Where everything runs.
        folder: Has, or gets, the folder `teachers` of what the runs have in common.
    """

    def __init__(self, adapter: TaskAdapter, device: torch.device, folder: Path) -> None:
        self.adapter, self.device, self.shared = adapter, device, folder / "teachers"

    def train_seed(
        self, config: Config, seed: int, work_dir: Path, *, resume: bool
    ) -> dict[str, Any]:
        """Run a config's phases with one seed, in one folder, and return the last one's result.

        Args:
            config: A checked config.
            seed: Of initialisation and dropout, and of the data unless the config has `data_seed`.
            work_dir: Folder of this run.
            resume: Continue what is in the folder.
        """
        with self.begun(config, seed, work_dir):
            settings = self.run_earlier_phases(config, seed, work_dir)
            return self._train_phase(settings, work_dir, seed=seed, resume=resume)

    def finished(self, config: Config, seed: int, work_dir: Path) -> dict[str, Any] | None:
        """Return the result that this config and seed have in a folder; None if they have none yet.

        Raises:
            UserError: If another config made what is there, or it is damaged.
        """
        made_by = recorded(self.adapter, config, seed)
        may_have_moved = identity.check(work_dir, made_by)
        result = identity.finished(work_dir, made_by)
        if result is not None and may_have_moved:
            last = phase_configs(config)[-1]
            data = build_data(last, seed, torch.device("cpu"))
            identity.check_data(work_dir, data_fingerprint(data))
        return result

    @contextmanager
    def begun(self, config: Config, seed: int, work_dir: Path) -> Iterator[None]:
        """Write down what makes a run, before anything else is in its folder.

        Raises:
            UserError: If another config made what is there.
        """
        made_by = recorded(self.adapter, config, seed)
        identity.check(work_dir, made_by)
        with identity.begun(work_dir, made_by):
            yield

    def run_earlier_phases(self, config: Config, seed: int, work_dir: Path) -> Config:
        """Run all phases of a config but the last, whose own config is returned."""
        for later in phase_configs(config)[1:]:  # a misspelt tap must show before the first phase
            self.build(later, seed, untrained=True)

        def earlier(settings: Config, folder: Path) -> None:
            # What serves every student must not depend on the seed of the first.
            own_seed = 0 if is_of_teachers(settings) else seed
            self._train_phase(settings, folder, seed=own_seed, resume=True)

        place_of = partial(phase_place, self.adapter, work_dir, self.shared, seed)
        return run_phases(config, place_of, earlier)

    def prepare(
        self,
        config: Config,
        work_dir: Path,
        *,
        seed: int,
        like: Prepared | None = None,
        shared: bool = False,
    ) -> Prepared:
        """Build a run of a config without phases, and write what is known of it before it starts.

        Args:
            config: A checked config.
            work_dir: Folder of the run.
            seed: See `train_seed`.
            like: Another run, whose data and teachers are taken.
            shared: Whether somebody else runs the teachers, for several students.
        """
        built = self.build(config, seed, like=like.built if like else None)
        settings = with_cache(config["trainer"], self.shared)
        if shared:
            settings = {**settings, "teacher_cache": False, "accelerate_teachers": False}
        trainer = build_trainer(
            built.parts,
            work_dir,
            optimizer=config["optimizer"],
            schedule=config["schedule"],
            **settings,
        )
        identity.check_data(work_dir, data_fingerprint(built.data))
        facts: dict[str, Any] = {"seed": seed, "data_seed": built.data.train.data_seed}
        facts["made_by"] = trainer.made_by = identity.digest_of(work_dir)
        facts["environment"] = report.environment(self.device)
        if distributed.rank() == 0:
            checkpoint.save_json(facts["environment"], work_dir / "environment.json")
            save_config({**config, "seed": seed}, work_dir / "config.py")
            print_tables(built)
        known = like.facts["teachers"] if like else {}
        if built.teachers.keys() <= known.keys():
            facts["teachers"] = {name: known[name] for name in built.teachers}
        else:
            facts["teachers"] = self.teacher_scores(built)
        return Prepared(built, trainer, facts)

    def build(
        self,
        config: Config,
        seed: int,
        *,
        untrained: bool = False,
        like: BuiltExperiment | None = None,
    ) -> BuiltExperiment:
        """Build what a config describes, training teachers by their recipes if need be.

        Args:
            config: A checked config, without phases.
            seed: Of initialisation and dropout.
            untrained: Neither load nor train the teachers' weights.
            like: Another built experiment, whose data and teachers are taken.
        """

        def train_teacher(recipe: Config, folder: Path) -> None:
            # With a seed of its own: the teacher must not depend on which student came first.
            self.train_seed(recipe, recipe.get("seed", 0), folder, resume=True)

        def data_of(recipe: Mapping[str, Any]) -> Any:
            same = recipe["data"] == config["data"]
            return data if same else build_data(recipe, seed, torch.device("cpu"))

        data = build_data(config, seed, self.device) if like is None else like.data
        get_teachers = partial(
            build_teachers, self.adapter, config, seed, data, self.shared, train_teacher
        )
        put_together = partial(build_experiment, self.adapter, config, seed, self.device, data)
        names = teacher_nodes(config)
        if like is not None and names.keys() <= like.teachers.keys():
            return put_together({name: like.teachers[name] for name in names})
        if not untrained and unfinished(self.adapter, config, self.shared):
            # A misspelt tap must show now, not after the hours that the teacher takes; and so must
            # classes that differ from those of the teacher's own data.
            put_together(get_teachers(untrained=True, own_data=data_of))
        return put_together(get_teachers(untrained=untrained))

    def teacher_scores(self, built: BuiltExperiment) -> dict[str, Any]:
        """Measure the teachers on the test set, so that a wrong checkpoint is seen at once."""
        scores: dict[str, Any] = {}
        for name, teacher in built.teachers.items():
            found = self.adapter.score_teacher(teacher, built.sample, built.data, built.parts.test)
            if found is None:
                text = "knows other classes, so its accuracy cannot be measured here"
            else:
                scores[name] = found
                text = f"{self.adapter.metric} {found[self.adapter.metric]:.2f} on the test set"
            if distributed.rank() == 0:
                err.print(f"teacher {name!r}: {text}")
        return scores

    def _train_phase(
        self, config: Config, work_dir: Path, *, seed: int, resume: bool
    ) -> dict[str, Any]:
        memory = memory_of(config)
        with memory_told(memory):
            ready = self.prepare(config, work_dir, seed=seed)
            if resume:
                resume_training(ready.trainer)  # no run has failed yet if it cannot
        with during_run(work_dir, seed, memory):
            return run(ready.trainer, ready.built.parts, ready.facts)


def memory_of(config: Config) -> str:
    """Return what takes less memory in a config's run."""
    trainer = config["trainer"]
    batch_size = config["data"].get("batch_size", "its default")
    return memory_remedy(batch_size, trainer.get("accumulate", 1), trainer.get("precision", "fp32"))


def with_cache(trainer: Config, folder: Path) -> Config:
    """Let `teacher_cache=True` mean this folder."""
    return (
        {**trainer, "teacher_cache": str(folder)}
        if trainer.get("teacher_cache") is True
        else trainer
    )


def print_tables(built: BuiltExperiment) -> None:
    """Print what is trained: networks and terms."""
    models = {"student": built.distiller.student, **built.teachers}
    networks = {
        role: (network_of(model), model.prepare(built.sample["image"][:1]))
        for role, model in models.items()
    }
    err.print(report.models_table(networks))
    if built.distiller.terms:
        err.print(report.terms_table(built.distiller))
