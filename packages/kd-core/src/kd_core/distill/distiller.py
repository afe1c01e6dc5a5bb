"""Distiller: a student, its frozen teachers, and the named terms between them."""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from kd_core.config.values import NonNegative, checked
from kd_core.distill.connections import (
    bind,
    check_labels,
    check_sample,
    check_shapes,
    connect,
    deployed_node,
    maps_in,
    source_of,
)
from kd_core.distill.joint_terms import losses_of
from kd_core.distill.progress import Position, with_progress
from kd_core.distill.teacher import as_teachers
from kd_core.distill.term import Term
from kd_core.distill.token_grids import check_token_grids
from kd_core.distill.weighing import weigh
from kd_core.errors import UserError, located
from kd_core.networks.batch_names import by_our_names
from kd_core.networks.frozen_norms import note_drift
from kd_core.networks.map_layout import map_values
from kd_core.networks.probe import shapes
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch, Task, network_of, passes_of, refuse_untrainable


class Distiller(nn.Module):
    """Computes the losses of a student: its task's, and one for each term with a teacher.

    In training, a call with a batch returns named scalar losses: the student's own, times
    `task_weight`, and one a term. In evaluation it returns the student's prediction. Any loop that
    needs only `losses = model(batch)` can train it. Teachers are not submodules; see `Teacher`. A
    teacher whose features are in `batch["teacher_features"]`, by its name, does not run.

    Args:
        student: A `Task`, or any model that obeys the same contract.
        teachers: Teachers by name, or one alone (its name is then "teacher").
        terms: Terms by name; the names are those of the losses.
        task_weight: Factor of the student's own losses, for all or by name. A loss with factor 0
            is left out, so parameters that only it reaches get no gradient and no decay. With 0 for
            all, a batch needs labels only if a criterion reads them.
        train_student: Whether the student is trained. Otherwise it is frozen like a teacher, and
            only criteria are: a phase before the student's own.
        sample: A batch that is run through all models once, to check every tap and shape now
            rather than in the first training step.

    Raises:
        UserError: If a term names an unknown teacher or tap, or its shapes do not suit it.
    """

    steps: Tensor
    student_first: bool = False
    """Whether teachers need the student's features; see `run_teacher`."""

    @checked
    def __init__(
        self,
        student: nn.Module,
        teachers: nn.Module | Mapping[str, nn.Module],
        terms: Mapping[str, Term],
        *,
        task_weight: NonNegative | Mapping[str, NonNegative] = 1.0,
        train_student: bool = True,
        sample: Batch | None = None,
    ) -> None:
        super().__init__()
        refuse_untrainable(student)
        self.student = student
        self.teachers = as_teachers(teachers, student)
        self.terms = connect(terms, student, self.teachers)
        self.task_weight = task_weight
        self.train_student = train_student
        if not train_student:
            student.eval().requires_grad_(False)
        self.peers = nn.ModuleDict()  # networks trained beside the student; see `mutual`
        self.criteria = nn.ModuleDict({name: term.criterion for name, term in terms.items()})
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.tap_shapes: dict[str, dict[str, Any]] = {}
        self._steps_per_epoch, self._epochs = 0, cast(int | None, None)
        self.was_started, self.reports = False, dict[str, Tensor]()
        self._seed = torch.initial_seed()  # equal in a resumed run, which is built after seeding
        for name, teacher in self.teachers.items():
            with located(f"teacher {name!r}"):
                teacher.infer_shapes(self.teacher_paths(name))
        paths = [path for term in self.terms.values() for path in tap_list(term.student)]
        with located("student"):
            self._tap = FeatureTap(network_of(student), [*paths, *self.own_taps()])
        bind(self.terms, student, self.teachers)
        if sample is not None:
            self.infer_shapes(sample)

    def forward(self, batch: Batch) -> Any:
        """Return named losses while training, the student's prediction otherwise."""
        batch = by_our_names(batch)
        if not self.training:
            return self.predictor().eval()(batch)
        if not self.tap_shapes:
            self.infer_shapes(batch)
            self._note_drift()
        # Teachers run first, while no maps of the student wait for the backward pass: less memory.
        teacher_features = {} if self.student_first else self.run_teachers(batch)
        losses, student_features = self._run_student(batch)
        teacher_features = (
            self.run_teachers(batch, student_features) if self.student_first else teacher_features
        )
        position = Position(self.steps, self._steps_per_epoch, self._epochs, self._seed)
        batch = with_progress(self.complete(batch, student_features), position)
        sources = {name: self.source(name) for name in self.terms}
        added, self.reports = losses_of(
            self.terms, sources, student_features, teacher_features, batch, position
        )
        for name in losses.keys() & {**added, **self.reports}.keys():
            raise UserError(f"term {name!r} has the name of a loss of the student; rename it")
        return losses | added

    def train(self, mode: bool = True) -> "Distiller":
        """Set the mode of student and criteria; an untrained student stays in eval mode."""
        super().train(mode)
        if not self.train_student:
            self.student.eval()
        elif mode:
            self._note_drift()
        return self

    def _note_drift(self) -> None:
        """At the first training, print which frozen parts still change by their BatchNorms."""
        if self.train_student and not self.was_started:
            note_drift(network_of(self.student), "student")
        self.was_started = True

    def run_teacher(
        self, name: str, batch: Batch, student_features: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the features of a teacher; those of the student are given if it ran first."""
        return self.teachers[name](batch)

    def own_taps(self) -> list[str]:
        """Return taps of the student that `run_teacher` or `complete` read, beside the terms'."""
        return []

    def complete(self, batch: Batch, student_features: dict[str, Any]) -> Batch:
        """Return the batch with the entries that criteria need from the student's pass."""
        return batch

    def infer_shapes(self, sample: Batch) -> None:
        """Run a batch through all models, unchanged, and check the shapes of every term."""
        sample = by_our_names(sample)
        with located("student"):
            maps = maps_in(self.terms.values(), "student")
            self._tap, student_features = map_values(self.student, self._tap, sample, maps)
            check_sample(self.student, sample)
        teacher_features = {}
        for name, teacher in self.teachers.items():
            with located(f"teacher {name!r}"):
                terms = [self.terms[term] for term in self.terms if self.source(term) == name]
                teacher_features[name] = teacher.infer_shapes(
                    self.teacher_paths(name), sample, maps_in(terms, "teacher")
                )
                check_sample(teacher.model, sample)
        self.tap_shapes = {
            "student": shapes(student_features),
            **{k: shapes(v) for k, v in teacher_features.items()},
        }
        check_shapes(self.terms, self.tap_shapes, self.teachers)
        check_token_grids(self.terms, sample, self.student, self.teachers)
        check_labels(self.terms, sample, student_features, teacher_features, self.teachers)

    def source(self, name: str) -> str:
        """Return the name of the teacher that a term learns from."""
        return source_of(name, self.terms[name], self.teachers)

    def teacher_paths(self, teacher: str) -> list[str]:
        """Return the taps of a teacher that terms read."""
        terms = [term for name, term in self.terms.items() if self.source(name) == teacher]
        return [path for term in terms for path in tap_list(term.teacher)]

    def begin(self, steps_per_epoch: int, epochs: int | None = None) -> None:
        """Restart the warm-ups, for so many epochs of so many optimizer steps."""
        self.steps.zero_()
        self._steps_per_epoch, self._epochs = steps_per_epoch, epochs

    def advance(self) -> None:
        """Count one optimizer step."""
        self.steps.add_(1)

    def deploy(self, network: nn.Module | None = None) -> nn.Module:
        """Return the network to evaluate and export: the student's, unless a criterion adds to it.

        Args:
            network: Another copy of the student's network to use, for instance its average.
        """
        network = network_of(self.student) if network is None else network
        for term in self.terms.values():
            network = term.criterion.deploy(network)
        return network

    def deploy_node(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config node of what `deploy` returns, from that of the student's network."""
        return deployed_node(self.terms, node)

    def predictor(self, network: nn.Module | None = None) -> nn.Module:
        """Return the student's task around the network of `deploy`."""
        deployed = self.deploy(network)
        if deployed is network_of(self.student):
            return self.student
        if not isinstance(self.student, Task):
            return deployed
        task = copy.copy(self.student)
        task._modules = {**self.student._modules, "network": deployed}
        return task

    def run_teachers(self, batch: Batch, student_features: Any = None) -> dict[str, Any]:
        """Return the features of every teacher, from the batch if it has them."""
        teacher_features = dict(batch.get("teacher_features", {}))
        for name in dict.fromkeys(self.source(name) for name in self.terms):
            if name not in teacher_features:
                teacher_features[name] = self.run_teacher(name, batch, student_features or {})
        return teacher_features

    def _run_student(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the student's own weighted losses and its features."""
        self._tap.passes = passes_of(self.student, batch)
        if self.train_student:
            with self._tap as student_features:
                if self.task_weight == 0 and isinstance(self.student, Task):
                    self.student.run_for_taps(batch)
                    return {}, student_features
                return weigh(self.student(batch), self.task_weight), student_features
        if not self._tap.paths:
            return {}, {}
        with torch.no_grad(), self._tap as student_features:
            self.student(batch)
        return {}, student_features

    def _apply(self, fn: Any, recurse: bool = True) -> "Distiller":
        super()._apply(fn, recurse)
        for teacher in self.teachers.values():
            for model in teacher.models:
                model._apply(fn, recurse)
        return self
