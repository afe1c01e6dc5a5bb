"""What a task package gives the training tool, so that the tool need not know the task."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kd_core.catalogue.names import Catalogue
from kd_core.config.node import Node, parse_call, plain
from kd_core.data.split_loader import SplitLoader
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError, located
from kd_core.experiment.spec import Experiment
from kd_core.files.weights import load_weights
from kd_core.networks.latency import Timed
from kd_core.networks.probe import untouched
from kd_core.networks.task import Batch, Task, network_of
from kd_core.training.hooks import Evaluate


class Data(Protocol):
    """What a config's `data` node builds."""

    train: SplitLoader

    @property
    def num_classes(self) -> int:
        """Return the number of classes, or identities, of the training set."""

    @property
    def num_samples(self) -> int:
        """Return the number of training samples."""

    @property
    def labels(self) -> Tensor:
        """Return the labels of the training samples, int64 [num_samples], on the host; or [0]."""

    def to(self, device: torch.device) -> None:
        """Let all loaders make their batches on a device."""


class Measures(NamedTuple):
    """How a run is measured.

    Args:
        test: On the test set.
        val: On the validation set, if there is one.
        metric: Defines the best epoch; larger is better.
        measured_on: What `test` looks at.
    """

    test: Evaluate
    val: Evaluate | None
    metric: str
    measured_on: str = "test data"


class TaskAdapter(ABC):
    """How one task builds its models, measures them and exports them.

    A task of yours writes `build_model` and `evaluators`, and names `title` and `metric`;
    `examples/own_task.py` is one, whole. Everything else has a default that a task may override:
    `load_finished` for teachers that are trained first, `check_student` and `metadata` next.

    The nodes `student`, `teacher` and `peers` of a config are what `build_model` takes.
    """

    title: ClassVar[str]
    """What the tool does, for `--help`."""
    metric: ClassVar[str]
    """Defines the best epoch; larger is better."""
    headings: ClassVar[Mapping[str, str]] = {}
    """Titles of metrics in tables, with their unit; others are called by their name."""
    demo_config: ClassVar[Path | None] = None
    """What a dry run without CONFIG takes."""
    catalogue: ClassVar[Catalogue | None] = None
    """The short names of its configs."""
    extra: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    """Further top-level names of a config, each with what its node has the arguments of; `data` is
    filled in. They come as `Experiment.extra`."""
    of_teacher_config: ClassVar[tuple[str, ...]] = ("network",)
    """Keys of a model's node that the teacher's own config sets."""
    of_network: ClassVar[tuple[str, ...]] = ("network",)
    """Keys that a teacher's node takes from its own config, where weights are from elsewhere."""

    @abstractmethod
    def build_model(self, data: Any, where: str, /, **node: Any) -> Task:
        """Build the student or teacher of a node; `where` is its place in the config."""

    @abstractmethod
    def evaluators(self, experiment: Experiment, data: Any) -> tuple[Evaluate, Evaluate | None]:
        """Return the evaluation on the test set and, if there is one, on the validation set."""

    def about(self) -> dict[str, str]:
        """Return what a run's folder says of the task, for `kd list runs`."""
        task = {"task": self.catalogue.task} if self.catalogue else {}
        return {**task, "metric": self.metric}

    def metric_of(self, data: Any) -> str:
        """Return the metric that defines the best epoch on this data."""
        return self.metric

    def measures(self, experiment: Experiment, data: Any, distiller: Distiller) -> Measures:
        """Return how a run is measured: `evaluators` and `metric_of`, unless a task needs more."""
        return Measures(*self.evaluators(experiment, data), self.metric_of(data))

    def load_finished(self, folder: Path, node: Mapping[str, Any]) -> Task:
        """Return the student of a finished run, as a teacher with what its node says."""
        raise UserError(
            f"{type(self).__name__} cannot read finished runs, so a teacher cannot be trained "
            "first; write its load_finished, or give the teacher `weights`"
        )

    def deployed(self, folder: Path, threads: int) -> dict[str, Timed]:
        """Return a finished run's student as it is deployed on a CPU, by what runs it.

        Args:
            folder: Of the run.
            threads: Of a call, for what is not PyTorch.
        """
        raise NotImplementedError  # `--latency` is refused before

    def match_data(self, teacher: Any, own_data: Any, data: Any) -> Any:
        """Return an untrained teacher of other data, as `match_teacher` will return the trained."""
        return teacher

    def match_teacher(
        self, teacher: Any, folder: Path, node: Mapping[str, Any], data: Any, where: str
    ) -> Any:
        """Return what `load_finished` has read, in the order of the data's classes."""
        return teacher

    def parse_model(self, node: Mapping[str, Any], where: str) -> Node:
        """Check a student's or teacher's node, without building anything, and return it."""
        return parse_call(self.build_model, node, where, provided=("num_classes",))

    def loss_names(self, node: Node) -> tuple[str, ...]:
        """Return the names of the losses that a student of this node may have, as far as known."""
        return ()

    def is_pretrained(self, network: Mapping[str, Any]) -> bool:
        """Return whether a network's node asks for weights that its library downloads."""
        return False

    def check_student(self, student: nn.Module, sample: Batch, data: Any, where: str) -> None:
        """Reject a student that does not fit the data, before any training."""
        with located(where), untouched(student):
            student(sample)

    def exported_node(self, network: Mapping[str, Any], student: Any) -> Mapping[str, Any]:
        """Return the node from which a file's reader builds the student's network again."""
        return network

    def metadata(self, network: Mapping[str, Any], data: Any, student: Any) -> dict[str, str]:
        """Return what a user of the exported weights must know, each value as JSON."""
        return {"network": json.dumps(plain(network))}

    def data_stand_in(self, data: Node) -> Node:
        """Return data that needs neither files nor downloads, for a dry run."""
        return data

    def model_stand_in(self, model: Node) -> Node:
        """Return a student or peer that needs no download, for a dry run."""
        return model

    def score_teacher(
        self, teacher: nn.Module, sample: Batch, data: Any, test: Evaluate
    ) -> dict[str, float] | None:
        """Measure a teacher, so that a wrong checkpoint is seen; None if it cannot be measured."""
        return test(teacher)

    def chance(self, data: Any) -> float | None:
        """Return the metric that guessing reaches; a teacher must exceed it. None for no limit."""
        return None

    def evaluate(
        self, model: nn.Module, experiment: Experiment, data: Any, teachers: dict[str, Any]
    ) -> dict[str, float]:
        """Measure a checkpoint for `--eval-only`."""
        return self.evaluators(experiment, data)[0](model)

    def load_checkpoint(self, model: nn.Module, path: Path, data: Any) -> None:
        """Load a file of weights into a model, to measure it on the data for `--eval-only`."""
        load_weights(network_of(model), path)
