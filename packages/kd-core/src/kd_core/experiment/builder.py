"""From a config to the parts of a run."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kd_core.config.build import build
from kd_core.config.kinds import Kind, makes_one_with
from kd_core.config.node import plain
from kd_core.config.values import NonNegative
from kd_core.distill.distiller import Distiller
from kd_core.distill.ensemble import with_ensembles
from kd_core.distill.mutual import MutualDistiller
from kd_core.distill.term import TermSpec, build_terms
from kd_core.errors import UserError
from kd_core.experiment.adapter import Data, TaskAdapter
from kd_core.experiment.run import Parts
from kd_core.experiment.spec import Experiment
from kd_core.networks.task import Batch, Task
from kd_core.runtime import distributed
from kd_core.runtime.failures import explain, first_line
from kd_core.runtime.seed import mix, rng_state, seed_everything, set_rng_state

DATA = Kind(
    "a data set",
    lambda found: makes_one_with(found, ("train", "num_classes", "num_samples", "labels", "to")),
    "a function that says that it returns one, such as `-> kd_cls.data.DataSplits` (see "
    "`kd_core.experiment.adapter.Data` for what it has)",
)


@dataclass
class BuiltExperiment:
    """Everything that a config describes, built and on its device."""

    data: Data
    distiller: Distiller
    parts: Parts
    sample: Batch

    @property
    def teachers(self) -> dict[str, Any]:
        """The teachers' models by name."""
        return {name: teacher.model for name, teacher in self.distiller.teachers.items()}


def build_experiment(
    adapter: TaskAdapter,
    experiment: Experiment,
    seed: int,
    device: torch.device,
    data: Data,
    teachers: Mapping[str, Task],
) -> BuiltExperiment:
    """Build student and terms, on the device.

    Args:
        adapter: Of the task.
        experiment: What is built, without its phases.
        seed: Of initialisation and dropout.
        device: Where everything runs.
        data: From `build_data`.
        teachers: The teachers by name.
    """
    seed_everything(seed)  # right before the student: all methods start from the same weights
    student = adapter.build_model(data, "student", **experiment.student).to(device)
    for teacher in teachers.values():
        teacher.to(device)
    sample = data.train.sample(2)
    adapter.check_student(student, sample, data, "student")
    if experiment.peers:
        distiller: Distiller = build_mutual(adapter, experiment, data, student, sample)
    else:
        settings: dict[str, Any] = {**experiment.distiller, "terms": experiment.terms}
        distiller = build_distiller(data, student, teachers, sample, **settings)
    distiller.to(device)
    check_single(distiller, data.train)
    seed_everything(mix(seed, 1 + distributed.rank()))  # dropout, whatever was built before
    test, val = adapter.evaluators(experiment, data)
    parts = Parts(
        distiller=distiller,
        loader=distributed.shard(data.train),
        test=test,
        val=val,
        metric=adapter.metric,
        metadata=adapter.metadata(
            distiller.deploy_node(
                adapter.exported_node(plain(experiment.student["network"]), student)
            ),
            data,
            student,
        ),
        sample=sample,
    )
    return BuiltExperiment(data, distiller, parts, sample)


def check_single(distiller: Distiller, loader: Any) -> None:
    """Try a batch of one image, if an epoch has one: BatchNorm may have nothing to average in it.

    Raises:
        UserError: If it cannot be trained on.
    """
    if loader.smallest(distributed.world_size()) != 1:
        return
    tried = copy.deepcopy(distiller)  # teachers are shared
    tried.begin(1)
    tried.train()
    state = rng_state()
    try:
        tried(loader.sample(1))
    except (ValueError, RuntimeError) as error:
        if memory := explain(error):
            raise memory from error
        raise UserError(
            f"the last batch of an epoch has one image a process, and training fails on it "
            f"({first_line(error)}); set data.drop_last=True, or another data.batch_size (now "
            f"{loader.batch_size})"
        ) from error
    finally:
        set_rng_state(state)


def build_distiller(
    data: Data,
    student: Task,
    teachers: Mapping[str, Task],
    sample: Batch,
    /,
    *,
    terms: Mapping[str, TermSpec | Mapping[str, Any]] | None = None,
    ensembles: Mapping[str, Sequence[str]] | None = None,
    task_weight: NonNegative | Mapping[str, NonNegative] = 1.0,
    train_student: bool = True,
) -> Distiller:
    """Build the distiller of a config's node: see `Distiller` for its keys.

    `ensembles` lists teachers by the name of an `Ensemble` of them, from which terms may learn.
    """
    models = with_ensembles(teachers, ensembles or {})
    built = build_terms(
        terms or {},
        student,
        models,
        sample,
        num_classes=data.num_classes,
        num_samples=data.num_samples,
        labels=data.labels,
    )
    return Distiller(
        student,
        models,
        built,
        task_weight=task_weight,
        train_student=train_student,
        sample=sample,
    )


def build_mutual(
    adapter: TaskAdapter, experiment: Experiment, data: Data, student: Task, sample: Batch
) -> MutualDistiller:
    """Build the student's peers and what they all learn."""
    peers = {}
    for name, node in experiment.peers.items():
        peers[name] = adapter.build_model(data, node.where, **node)
        peers[name].to(sample["image"].device)
        adapter.check_student(peers[name], sample, data, node.where)
    return MutualDistiller(student, peers, sample=sample, **experiment.distiller)


def build_data(node: Mapping[str, Any], data_seed: int, device: torch.device) -> Any:
    """Build a node of data, with loaders that give batches on the device.

    `data_seed` is taken unless the node has one of its own.
    """
    data = build(node, "data", kind=DATA, data_seed=data_seed)
    data.to(device)
    return data
