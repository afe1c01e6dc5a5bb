"""From a config to the parts of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kd_core.config.build import build
from kd_core.config.kinds import Kind, makes_one_with
from kd_core.config.node import plain
from kd_core.config.values import NonNegative, Positive
from kd_core.data.loader_set import has_labels
from kd_core.distill.distiller import Distiller
from kd_core.distill.ensemble import with_ensembles
from kd_core.distill.mutual import MutualDistiller
from kd_core.distill.term import build_terms
from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError
from kd_core.experiment.adapter import Data, TaskAdapter
from kd_core.experiment.parts import Parts
from kd_core.experiment.spec import Experiment
from kd_core.networks.copying import copied
from kd_core.networks.sharding import chosen, is_sharded, shard
from kd_core.networks.task import Batch, Task
from kd_core.runtime import distributed
from kd_core.runtime.failures import explain, first_line
from kd_core.runtime.seed import mix, rng_state, seed_everything, set_rng_state

DATA = Kind(
    "a data set",
    lambda found: makes_one_with(found, ("train", "num_classes", "num_samples", "labels", "to")),
    "a function that says that it returns one, such as `-> kd_cls.data.DataSplits` (see "
    "`kd_core.experiment.adapter.Data` for what it has); a torch.utils.data.Dataset goes into "
    "`kd_cls.data.dataset`, as its train and test",
)


@dataclass
class BuiltExperiment:
    """Everything that a config describes, built and on its device."""

    data: Data
    distiller: Distiller
    parts: Parts
    sample: Batch
    note: str = ""
    """What the user should know of the training batches."""

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
    _place_teachers(teachers, experiment, device)
    sample = data.train.sample(2)
    adapter.check_student(student, sample, data, "student")
    settings: dict[str, Any] = {**experiment.distiller, "terms": experiment.terms}
    if not has_labels(data):
        settings = without_labels(experiment, settings)
    if experiment.peers:
        distiller: Distiller = build_mutual(adapter, experiment, data, student, sample)
    else:
        distiller = build_distiller(data, student, teachers, sample, **settings)
    distiller.to(device)
    loader, note = without_single(distiller, data.train)
    seed_everything(mix(seed, 1 + distributed.rank()))  # dropout, whatever was built before
    parts = Parts(
        distiller=distiller,
        loader=distributed.shard(loader),
        **adapter.measures(experiment, data, distiller)._asdict(),
        metadata=adapter.metadata(
            distiller.deploy_node(
                adapter.exported_node(plain(experiment.student["network"]), student)
            ),
            data,
            distiller.predictor(),
        ),
        sample=sample,
    )
    return BuiltExperiment(data, distiller, parts, sample, note)


def _place_teachers(
    teachers: Mapping[str, Task], experiment: Experiment, device: torch.device
) -> None:
    """Bring teachers to the device: whole, or in every process a part of those to be sharded."""
    trainer = experiment.trainer
    wanted = trainer.get("shard_teachers", False) if trainer else False
    to_shard = chosen(wanted, teachers)
    for name, teacher in teachers.items():
        if name in to_shard and not is_sharded(teacher):
            note = shard(teacher, f"teacher {name!r}", device)
            distributed.print_note(f"teacher {name!r}: {note}")
        else:
            teacher.to(device)


def without_labels(experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what puts a run on images without labels together: the task's loss has no weight.

    Raises:
        UserError: If there are peers, which learn from labels too.
    """
    if experiment.peers:
        raise UserError("peers: they learn from labels too, and this data has none; take a teacher")
    if settings.get("task_weight", 1.0):
        distributed.print_note(
            "no labels: the student's own loss is left out, as with task_weight=0"
        )
    return {**settings, "task_weight": 0}


def without_single(distiller: Distiller, loader: Any) -> tuple[Any, str]:
    """Leave out a last batch of one image a process if it cannot be trained on.

    BatchNorm has nothing to average in it, where its maps have one pixel.

    Returns:
        The loader, and a line to print; "" if nothing is left out.

    Raises:
        UserError: If all batches have one image a process.
    """
    processes = distributed.world_size()
    if _smallest(loader, processes) != 1 or not (why := _why_not_single(distiller, loader)):
        return loader, ""
    shorter = loader.without_single()
    if _smallest(shorter, processes) <= 1:
        raise UserError(
            f"a batch has one image a process, and training fails on it ({why}); set another "
            f"data.batch_size (now {loader.batch_size}), or take more images"
        )
    return shorter, (
        f"the last batch of an epoch has one image a process, and training fails on it ({why}): it "
        f"is left out. Another data.batch_size (now {loader.batch_size}) makes use of all images"
    )


def _smallest(loader: Any, processes: int) -> int:
    """Return the images of the smallest batch that a process sees in an epoch; 0 for no batch."""
    part = loader.shard(0, processes)
    return int(part.smallest(processes)) if len(part) else 0


def _why_not_single(distiller: Distiller, loader: Any) -> str:
    """Return why training fails on one image; "" if it does not."""
    tried = copied(distiller)  # teachers are shared
    tried.begin(1, 1)
    tried.was_started = True  # what is to be said is said of the distiller itself
    tried.train()
    state = rng_state()
    try:
        tried(loader.sample(1))
    except (ValueError, RuntimeError) as error:
        if memory := explain(error):
            raise memory from error
        return first_line(error)
    finally:
        set_rng_state(state)
    return ""


def build_distiller(
    data: Data,
    student: Task,
    teachers: Mapping[str, Task],
    sample: Batch,
    /,
    *,
    terms: Mapping[str, TermSpec | Mapping[str, Any]] | None = None,
    ensembles: Mapping[str, Sequence[str] | Mapping[str, Positive]] | None = None,
    task_weight: NonNegative | Mapping[str, NonNegative] = 1.0,
    train_student: bool = True,
) -> Distiller:
    """Build the distiller of a config's node: see `Distiller` for its keys.

    `ensembles` lists teachers by the name of an `Ensemble` of them, from which terms may learn; a
    dict from teachers to numbers says how much each counts.
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
