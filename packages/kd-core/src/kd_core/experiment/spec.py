"""Read the configs of runs; every name is checked before any work starts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_core.config.build import check, check_arguments
from kd_core.config.by_name import KEYS
from kd_core.config.reading import load_config, merge
from kd_core.distill.mutual import MutualDistiller
from kd_core.distill.term import GIVEN, check_term
from kd_core.errors import UserError, located
from kd_core.experiment.adapter import Config, TaskAdapter
from kd_core.experiment.builder import DATA, build_distiller
from kd_core.experiment.parsers import MOST_SEEDS
from kd_core.experiment.phases import replace_products
from kd_core.training.optimizer import check_optimizer
from kd_core.training.schedule import SCHEDULE
from kd_core.training.settings import parse_trainer

NAMES = (
    "data",
    "student",
    "teacher",
    "teachers",
    "peers",
    "distiller",
    "optimizer",
    "schedule",
    "trainer",
    "phases",
    "seed",
    "data_seed",
    *KEYS,
)
"""The top-level names of a config."""

_SEEDS = ("seed", "data_seed")
_NODES = {
    "data": (("data_seed",), DATA),
    "schedule": (("epochs",), SCHEDULE),
}
"""Of the nodes that every task has, the arguments that are filled in, and what they must name."""


def read_config(
    adapter: TaskAdapter,
    paths: str | Path | Sequence[str | Path],
    options: Mapping[str, Any] | None = None,
    *,
    training: bool = True,
    note: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Load config files with overrides, see `load_config`, and check every name in them.

    The recipes that train its teachers are checked too.

    Args:
        adapter: Of the task.
        paths: One python file or several.
        options: Values by dotted path.
        training: Whether what only training needs must be there.
        note: Takes lines on values for the pair, see `load_config`.

    Raises:
        UserError: If anything is missing or unknown.
    """
    config = load_config(paths, options, known=(*NAMES, *adapter.extra_names), note=note)
    for phase in phase_configs(config):
        _check(adapter, phase, training)
    return config


def phase_configs(config: Config) -> list[dict[str, Any]]:
    """Return the whole config of each phase, or the config itself if it lists none.

    This is for checks and dry runs: what an earlier phase makes is None here.
    """
    phases = _mapping(config.get("phases") or {"": {}}, "phases")
    rest = {name: value for name, value in config.items() if name != "phases"}
    wholes = []
    for position, (name, overrides) in enumerate(phases.items()):
        whole = merge(rest, _mapping(overrides, f"phases.{name}"))
        wholes.append(replace_products(whole, dict.fromkeys(list(phases)[:position])))
    return wholes


def teacher_nodes(config: Config) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the place and a copy of the node of each teacher: of `teachers`, or `teacher` alone.

    `teacher=None` means no teacher: so a method with its own teachers removes that of a pair.

    Raises:
        UserError: If a config has both.
    """
    alone = config.get("teacher") is not None
    if alone and "teachers" in config:
        raise UserError(
            "give `teacher` (one) or `teachers` (several, by name), not both; a later file with "
            "`teacher = None` leaves that of a pair out"
        )
    if alone:
        return {"teacher": ("teacher", dict(_mapping(config["teacher"], "teacher")))}
    nodes = _mapping(config.get("teachers", {}), "teachers").items()
    places = {name: f"teachers.{name}" for name, _ in nodes}
    return {name: (places[name], dict(_mapping(node, places[name]))) for name, node in nodes}


def _check_names(config: Config, training: bool) -> None:
    for name in ("data", "student", *(("optimizer", "schedule", "trainer") if training else ())):
        if name not in config:
            raise UserError(f"the config has no {name!r}; compose it from data, pair and method")
    for name, value in config.items():
        if name in _SEEDS and not (type(value) is int and 0 <= value < MOST_SEEDS):
            raise UserError(
                f"{name}: wanted a whole number, got {value!r}; from 0 to {MOST_SEEDS - 1}"
            )
        if name not in _SEEDS and not (name == "teacher" and value is None):
            _mapping(value, name)


def _check(adapter: TaskAdapter, config: Config, training: bool) -> None:
    _check_names(config, training)
    for name, (given, kind) in _NODES.items():
        if name in config:
            _mapping(config[name], name, has_type=True)
            check(config[name], name, given, kind)
    if "optimizer" in config:
        check_optimizer(_mapping(config["optimizer"], "optimizer", has_type=True))
    adapter.check_model(config["student"], "student")
    for where, node in teacher_nodes(config).values():
        _check_teacher(adapter, node, where)
    if "peers" in config:
        _check_peers(adapter, config)
    else:
        _check_distiller(config.get("distiller", {}))
    adapter.check_extra(config)
    if "trainer" in config:
        parse_trainer(config["trainer"])


def _check_teacher(adapter: TaskAdapter, node: dict[str, Any], where: str) -> None:
    if "config" not in node:
        adapter.check_model(node, where)
        return
    recipe = node.pop("config")
    for name in adapter.of_teacher_config:
        if name in node:
            raise UserError(f"{where}: {name!r} is what its recipe says; leave one of them out")
    with located(f"{where}.config"):
        student = read_config(adapter, recipe)["student"]
    adapter.check_model({**node, "network": student["network"]}, where)


def _check_peers(adapter: TaskAdapter, config: Config) -> None:
    if teacher_nodes(config):
        raise UserError("`peers` learn from one another, without a teacher; leave one of them out")
    for name, node in _mapping(config["peers"], "peers").items():
        where = f"peers.{name}"
        adapter.check_model(merge(config["student"], _mapping(node, where)), where)
    given = ("student", "peers")
    check_arguments(MutualDistiller, config.get("distiller", {}), "distiller", given)


def _check_distiller(node: Config) -> None:
    check_arguments(build_distiller, node, "distiller")
    terms = _mapping(node.get("terms", {}), "distiller.terms")
    for name, term in terms.items():
        check_term(_mapping(term, f"distiller.terms.{name}"), f"distiller.terms.{name}")
    check(node, "distiller", GIVEN)


def _mapping(value: Any, where: str, *, has_type: bool = False) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or (has_type and "type" not in value):
        wanted = "a dict with `type`, an import path" if has_type else "a dict"
        raise UserError(f"{where}: wanted {wanted}, got {value!r}")
    return value
