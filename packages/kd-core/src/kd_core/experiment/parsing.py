"""Read the configs of runs into typed experiments; all is checked before any work starts."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kd_core.config.by_name import KEYS
from kd_core.config.names import named
from kd_core.config.node import Node, mapping, parse, parse_call
from kd_core.config.reading import load_config, merge, override
from kd_core.config.trying import try_out
from kd_core.config.values import Seed
from kd_core.distill.mutual import MutualDistiller
from kd_core.distill.term import parse_term
from kd_core.errors import UserError, located, nearest
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.builder import DATA, build_distiller
from kd_core.experiment.outputs import parse_stored
from kd_core.experiment.spec import Experiment, TeacherSpec, given, phases_of, teachers_of
from kd_core.experiment.teacher_options import refuse_idle, refuse_training
from kd_core.training.optimizer import parse_optimizer
from kd_core.training.schedule import SCHEDULE
from kd_core.training.settings import TrainerSettings, parse_trainer

NAMES = (
    *("data", "student", "teacher", "teachers", "peers", "distiller"),
    *("optimizer", "schedule", "trainer", "phases", "seed", "data_seed"),
    *KEYS,
)
"""The top-level names of a config."""

_FOR_TRAINING = ("optimizer", "schedule", "trainer")

Config = Mapping[str, Any]


def read_experiment(
    adapter: TaskAdapter,
    paths: str | Path | Sequence[str | Path | Config],
    options: Config | None = None,
    *,
    training: bool = True,
    note: Callable[[str], object] = lambda line: None,
) -> Experiment:
    """Load config files with overrides, see `load_config`, and parse them.

    Args:
        adapter: Of the task.
        paths: One python file or several, or what would stand in one.
        options: Values by dotted path. `teacher.trainer.epochs` and its like are of the teacher's
            own training.
        training: Whether what only training needs must be there.
        note: Takes lines on values for the pair, see `load_config`.

    Raises:
        UserError: If anything is missing, unknown or outside its range.
    """
    names = known_names(adapter)
    own, of_teachers = _split(options or {}, names)
    config = load_config(paths, own, known=names, note=note)
    return _Parser(adapter, training).config(config, of_teachers)


def parse_experiment(
    adapter: TaskAdapter, config: Config, options: Config | None = None, *, training: bool = True
) -> Experiment:
    """Parse a config, the configs that train its teachers included; see `read_experiment`."""
    own, of_teachers = _split(options or {}, known_names(adapter))
    config = override(dict(config), own, known=known_names(adapter))
    return _Parser(adapter, training).config(config, of_teachers)


def known_names(adapter: TaskAdapter) -> tuple[str, ...]:
    """Return the top-level names of a task's configs."""
    return (*NAMES, *adapter.extra)


@dataclass
class _Parser:
    """Parses the configs of a command, that of each teacher only once.

    Args:
        adapter: Of the task.
        training: Whether what only training needs must be there.
        above: Configs of teachers around this one.
        known: Experiments of teachers that were read.
    """

    adapter: TaskAdapter
    training: bool
    above: tuple[str, ...] = ()
    known: dict[str, Experiment] = field(default_factory=dict)

    def config(self, config: Config, of_teachers: Mapping[str, Config]) -> Experiment:
        """Parse a whole config; `of_teachers` has options of teachers' own training, by place."""
        wholes = phases_of(config)
        places = {where for whole in wholes.values() for where, _ in teachers_of(whole).values()}
        for where, inner in of_teachers.items():
            if where not in places:
                option = f"{where}.{next(iter(inner))}"
                raise UserError(f"option {option}: there is no {where}{nearest(where, places)}")
        parsed: dict[str, Experiment] = {}
        for name, whole in wholes.items():
            with located(f"phases.{name}") if name else nullcontext():
                _check_names(whole, known_names(self.adapter))
                parsed[name] = self._phase(whole, of_teachers)
        _, last = parsed.popitem()
        return replace(last, phases=parsed)

    def _phase(self, config: Config, of_teachers: Mapping[str, Config]) -> Experiment:
        """Parse the config of one phase."""
        wanted = ("data", "student", *(_FOR_TRAINING if self.training else ()))
        if lacking := [name for name in wanted if name not in config]:
            needed = f"the config has no {lacking[0]!r}"
            raise UserError(f"{needed}; compose it from data, pair and method")
        seeds = {name: config[name] for name in ("seed", "data_seed") if name in config}
        experiment = Experiment(
            data=parse(config["data"], "data", kind=DATA, provided=("data_seed",)),
            student=self.adapter.parse_model(mapping(config["student"], "student"), "student"),
            teachers={
                name: self._teacher(node, where, of_teachers.get(where, {}))
                for name, (where, node) in teachers_of(config).items()
            },
            **self._distiller(config),
            **_training({name: config[name] for name in _FOR_TRAINING if name in config}),
            extra={
                name: parse_call(function, config.get(name, {}), name, provided=("data",))
                for name, function in self.adapter.extra.items()
            },
            **parse_call(_seeds, seeds).arguments,
        )
        experiment.check_losses(self.adapter.loss_names(experiment.student))
        return experiment

    def _distiller(self, config: Config) -> dict[str, Any]:
        """Parse what the student learns from teachers, or from its peers."""
        node = mapping(given(config, "distiller"), "distiller")
        if config.get("peers") is None:
            nodes = named(given(node, "terms"), "distiller.terms")
            terms = {name: parse_term(n, f"distiller.terms.{name}") for name, n in nodes.items()}
            rest = {key: value for key, value in node.items() if key != "terms"}
            return {"distiller": parse_call(build_distiller, rest, "distiller"), "terms": terms}
        if teachers_of(config):
            raise UserError(
                "`peers` learn from one another, without a teacher; leave one of them out"
            )
        peers = {}
        for name, own in named(config["peers"], "peers").items():
            where = f"peers.{name}"
            whole = merge(config["student"], mapping(own, where))
            peers[name] = self.adapter.parse_model(whole, where)
        if not peers:
            raise UserError("mutual learning needs a peer; name one under `peers`")
        members = ("student", "peers")
        return {
            "distiller": parse_call(MutualDistiller, node, "distiller", provided=members),
            "peers": peers,
        }

    def _teacher(self, node: Config, where: str, options: Config) -> TeacherSpec:
        names = known_names(self.adapter)
        if "outputs" in node:
            return TeacherSpec(where, parse_stored({**node, **options}, where), node)
        if "config" not in node:
            refuse_training(where, (*options, *node), names)
            return TeacherSpec(where, self.adapter.parse_model(node, where), node)
        own = {key: value for key, value in node.items() if key not in ("config", *names)}
        for name in self.adapter.of_teacher_config:
            if name in own:
                raise UserError(f"{where}: {name!r} is what its config says; leave one of them out")
        refuse_idle(where, options, own)
        changes = {key: value for key, value in node.items() if key in names}
        with located(f"{where}.config"):
            experiment = self._experiment(node["config"], changes, options)
        student = experiment.student
        taken = {key: student[key] for key in self.adapter.of_network if key in student}
        model = self.adapter.parse_model({**taken, **own}, where)
        return TeacherSpec(where, model, own, experiment)

    def _experiment(self, written: Any, changes: Config, options: Config) -> Experiment:
        """Parse the config of a teacher's own training."""
        key = repr((written, changes, dict(options)))
        if key in self.above:
            raise UserError("this config leads back to itself; give a teacher another config")
        if key not in self.known:
            config = self._read(written)
            inner = replace(self, training=True, above=(*self.above, key))
            own, of_teachers = _split(options, known_names(self.adapter))
            config = override(merge(config, changes), own, known=known_names(self.adapter))
            self.known[key] = inner.config(config, of_teachers)
        return self.known[key]

    def _read(self, written: Any) -> dict[str, Any]:
        if isinstance(written, Mapping):
            return dict(written)
        files = [written] if isinstance(written, str) else written
        texts = isinstance(files, list | tuple) and all(isinstance(file, str) for file in files)
        if not (files and texts):
            raise UserError(f"wanted a config file, or a list of them, got {written!r:.200}")
        return load_config(files, known=known_names(self.adapter))


def _check_names(config: Config, known: Collection[str]) -> None:
    """Reject a top-level name that a phase cannot have: files and options are checked as read."""
    allowed = [name for name in known if name not in (*KEYS, "phases")]
    for name in config:
        if name not in allowed:
            raise UserError(f"unknown name {name!r}{nearest(name, allowed)}")


def _split(options: Config, names: Collection[str]) -> tuple[Config, dict[str, dict[str, Any]]]:
    """Return the options of a config, and by place those of its teachers' own training."""
    own: dict[str, Any] = {}
    of_teachers: dict[str, dict[str, Any]] = {}
    for option, value in options.items():
        parts, place = option.split("."), ""
        inner = {"teacher": 1, "teachers": 2}.get(parts[0], len(parts))
        misspelt = inner + 1 < len(parts) and get_close_matches(parts[inner], names, 1, 0.85)
        if inner < len(parts) and (parts[inner] in names or misspelt):
            option, place = ".".join(parts[inner:]), ".".join(parts[:inner])
        (of_teachers.setdefault(place, {}) if place else own)[option] = value
    return own, of_teachers


def _training(config: Config) -> dict[str, Any]:
    """Return the trainer, optimizer and schedule of a config; the last two were tried out."""
    found, epochs = dict[str, Node](), 1
    if "trainer" in config:
        settings = parse_trainer(config["trainer"])
        own = {key: getattr(settings, key) for key in config["trainer"]}
        found["trainer"], epochs = Node(TrainerSettings, own, "trainer"), settings.epochs
    if "optimizer" in config:
        found["optimizer"] = parse_optimizer(config["optimizer"])
    if "schedule" in config:
        node = parse(config["schedule"], "schedule", kind=SCHEDULE, provided=("epochs",))
        if "epochs" in node:
            raise UserError("schedule.epochs is what trainer.epochs says; leave it out")
        try_out(node, lambda node: node.build(epochs=epochs))
        found["schedule"] = node
    return found


def _seeds(seed: Seed = 0, data_seed: Seed | None = None) -> None:
    """Take the seeds of a config, to have them checked."""
