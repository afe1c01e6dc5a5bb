"""What is trained, on what and how: a config as typed, checked objects.

`kd_core.experiment.parsing` makes them, once; after it no unchecked value travels.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.config.names import named
from kd_core.config.node import Node, map_leaves, mapping, plain
from kd_core.config.reading import merge
from kd_core.distill.term_spec import TermSpec
from kd_core.distill.weighing import refuse_names
from kd_core.errors import UserError, nearest

_PREFIX = "phase:"
RANDOM = "random"
"""As `weights` of a node: leave the network as it is initialised, even a pretrained one."""


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher.

    Args:
        where: Its place in the config: `teacher`, or `teachers.NAME`.
        model: Arguments of the adapter's `build_model`.
        own: Those of them that the teacher's own node has, rather than its experiment.
        experiment: Its own training, which runs first and once; None for weights from elsewhere.
    """

    where: str
    model: Node
    own: Mapping[str, Any]
    experiment: "Experiment | None" = None

    @property
    def weights(self) -> str | None:
        """The file of its weights, or `RANDOM`."""
        return self.model.get("weights")

    @property
    def is_stored(self) -> bool:
        """Whether it has no network, but a file of outputs."""
        return "outputs" in self.model

    @property
    def to_train(self) -> "Experiment | None":
        """What has to be trained first, unless weights take its place."""
        return None if self.weights else self.experiment

    def untrained(self) -> "TeacherSpec":
        """Return the same teacher with random weights."""
        return replace(self, model=self.model.changed(weights=RANDOM))

    def plain(self) -> dict[str, Any]:
        """Return the node as it would be written, with its whole experiment."""
        config = {} if self.experiment is None else {"config": self.experiment.plain()}
        return {**config, **plain(self.own)}


@dataclass(frozen=True)
class Experiment:
    """A run: the last phase of a config, and the phases that are run before.

    Args:
        data: The data set.
        student: Arguments of the adapter's `build_model`.
        teachers: By name.
        peers: Networks that learn beside the student, by name, as `student`.
        terms: What the student learns from teachers, by name.
        distiller: The other arguments of what puts these together.
        optimizer: None where nothing is to be trained, as for the next two.
        schedule: Of the learning rate.
        trainer: Arguments of `kd_core.experiment.run.build_trainer`.
        extra: What the task adds, by name; see `TaskAdapter.extra`.
        seed: Of initialisation and dropout, unless the command line names others.
        data_seed: Of order and augmentation; None takes the run's seed.
        phases: Those before this one, by name and in order.
    """

    data: Node
    student: Node
    distiller: Node
    teachers: Mapping[str, TeacherSpec] = field(default_factory=dict)
    peers: Mapping[str, Node] = field(default_factory=dict)
    terms: Mapping[str, TermSpec] = field(default_factory=dict)
    optimizer: Node | None = None
    schedule: Node | None = None
    trainer: Node | None = None
    extra: Mapping[str, Node] = field(default_factory=dict)
    seed: int = 0
    data_seed: int | None = None
    phases: Mapping[str, "Experiment"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.distiller.get("train_student") is not False or self.trainer is None:
            return
        if self.trainer.get("early_stop") is not None:
            raise UserError(
                "trainer.early_stop: the student is not trained here, so its metric never "
                "changes; set trainer.early_stop=None"
            )
        if self.trainer.get("activation_checkpointing"):
            raise UserError(
                "trainer.activation_checkpointing: the student is not trained here, so it keeps no "
                "activations; set trainer.activation_checkpointing=False"
            )

    def check_losses(self, own: Collection[str]) -> None:
        """Reject terms whose losses have the names of the student's own, which are these."""
        weight = self.distiller.get("task_weight", 1.0)
        if self.distiller.get("train_student") is not False:
            for name, term in self.terms.items():
                names = {name, term.call.get("joint") or name}
                refuse_names(names, own, weight, f"distiller.terms.{name}")

    @property
    def each_phase(self) -> list["Experiment"]:
        """All phases in order, this one last, each an experiment without others."""
        return [*self.phases.values(), replace(self, phases={})]

    def with_products(self, folders: Mapping[str, Path | None]) -> "Experiment":
        """Replace `phase:NAME/FILE` texts in a phase by paths.

        Args:
            folders: Those of the earlier phases by name; None where there is none yet, as in a dry
                run, and then None takes the place of the text too.
        """
        return self.map_leaves(partial(_product, folders=folders))

    def without_products(self) -> list["Experiment"]:
        """Return every phase as long as no earlier one has run: for checks and dry runs."""
        none = dict.fromkeys(self.phases)
        return [phase.with_products(none) for phase in self.each_phase]

    def training(self, cache: Path | None = None) -> dict[str, Any]:
        """Return the keywords of `build_trainer`.

        Args:
            cache: Folder of teacher outputs where the settings name none.
        """
        nodes = {"optimizer": self.optimizer, "schedule": self.schedule}
        for name, node in {**nodes, "trainer": self.trainer}.items():
            if node is None:
                raise UserError(f"nothing says how to train: set {name}")
        settings: dict[str, Any] = {**(self.trainer or {}), **nodes}
        if cache is not None:
            settings |= {"cache_folder": cache, "same_data_seed": self.data_seed is not None}
        return settings

    def without_teachers(self) -> "Experiment":
        """Return the same run without teachers."""
        phases = {name: phase.without_teachers() for name, phase in self.phases.items()}
        return replace(self, teachers={}, phases=phases)

    def map_leaves(self, change: Callable[[Any], Any]) -> "Experiment":
        """Return the experiment with every value of its nodes changed, phases left as they are."""
        terms = {
            name: replace(
                term, call=map_leaves(term.call, change), weights=map_leaves(term.weights, change)
            )
            for name, term in self.terms.items()
        }
        teachers = {
            name: replace(
                teacher,
                model=map_leaves(teacher.model, change),
                own=map_leaves(teacher.own, change),
            )
            for name, teacher in self.teachers.items()
        }
        nodes = ("data", "student", "distiller", "peers", "optimizer", "schedule", "trainer")
        changed = {name: map_leaves(getattr(self, name), change) for name in (*nodes, "extra")}
        return replace(self, terms=terms, teachers=teachers, **changed)

    def plain(self) -> dict[str, Any]:
        """Return the config as it would be written: dicts, lists, texts, numbers.

        The settings of the last phase are at the top, those of earlier ones under `phases`; a
        teacher's `config` is the whole one.
        """
        terms = {name: term.plain() for name, term in self.terms.items()}
        distiller = {**self.distiller.plain(), **({"terms": terms} if terms else {})}
        named: Iterable[tuple[str, Any]] = (
            ("data", plain(self.data)),
            ("student", plain(self.student)),
            *self._plain_teachers().items(),
            ("peers", plain(self.peers)),
            ("distiller", distiller),
            *((name, plain(getattr(self, name))) for name in ("optimizer", "schedule", "trainer")),
            *((name, plain(node)) for name, node in self.extra.items()),
            ("phases", {name: phase.plain() for name, phase in self.phases.items()}),
        )
        seeds = {} if self.data_seed is None else {"data_seed": self.data_seed}
        return {**{name: value for name, value in named if value}, "seed": self.seed, **seeds}

    def _plain_teachers(self) -> dict[str, Any]:
        found = {name: teacher.plain() for name, teacher in self.teachers.items()}
        alone = [teacher for teacher in self.teachers.values() if teacher.where == "teacher"]
        return {"teacher": alone[0].plain()} if alone else {"teachers": found}


def phases_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the whole config of each phase, or of the only one, without a name."""
    rest = {name: value for name, value in config.items() if name != "phases"}
    wholes: dict[str, dict[str, Any]] = {}
    for name, changes in (named(given(config, "phases"), "phases") or {"": {}}).items():
        whole = merge(rest, mapping(changes, f"phases.{name}"))
        map_leaves(whole, partial(_product, folders=dict.fromkeys(wholes)))  # refuses wrong names
        wholes[name] = whole
    return wholes


def teachers_of(config: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return the place and the node of each teacher: of `teachers`, or `teacher` alone.

    A `teacher` that is None is none: so a method with teachers of its own leaves a pair's out.

    Raises:
        UserError: If a config has both.
    """
    alone = config.get("teacher") is not None
    if alone and config.get("teachers") is not None:
        raise UserError(
            "give `teacher` (one) or `teachers` (several, by name), not both; a later file with "
            "`teacher = None` leaves that of a pair out"
        )
    if alone:
        return {"teacher": ("teacher", mapping(config["teacher"], "teacher"))}
    nodes = named(given(config, "teachers"), "teachers").items()
    return {name: (f"teachers.{name}", mapping(node, f"teachers.{name}")) for name, node in nodes}


def given(config: Mapping[str, Any], name: str) -> Any:
    """Return what a config has under a name; an empty dict where it has nothing, or None."""
    return {} if config.get(name) is None else config[name]


def _product(value: Any, folders: Mapping[str, Path | None]) -> Any:
    if not isinstance(value, str) or not value.startswith(_PREFIX):
        return value
    name, _, file = value.removeprefix(_PREFIX).partition("/")
    if name not in folders:
        raise UserError(f"{value!r}: there is no earlier phase {name!r}{nearest(name, folders)}")
    folder = folders[name]
    return None if folder is None else str(folder / (file or "student.pth"))
