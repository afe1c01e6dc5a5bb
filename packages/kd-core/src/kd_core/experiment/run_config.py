"""Read the configs of runs; every name is checked before any work starts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_core.config.build import check, check_arguments
from kd_core.config.reading import load_config, merge
from kd_core.distill.mutual import MutualDistiller
from kd_core.distill.term import GIVEN, check_term
from kd_core.errors import UserError, located
from kd_core.experiment.assembly import DATA, build_distiller
from kd_core.experiment.cli import MOST_SEEDS
from kd_core.experiment.kit import Config, Kit
from kd_core.experiment.run import build_trainer
from kd_core.experiment.stages import replace_products
from kd_core.training.optimizer import OPTIMIZER
from kd_core.training.schedule import SCHEDULE
from kd_core.training.step import STEP

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
    "stages",
    "seed",
    "data_seed",
)
"""The top-level names of a config."""

_SEEDS = ("seed", "data_seed")
_NODES = {
    "data": (("data_seed",), DATA),
    "optimizer": (("params",), OPTIMIZER),
    "schedule": (("epochs",), SCHEDULE),
}
"""Of the nodes that every task has, the arguments that are filled in, and what they must name."""


def read_config(
    kit: Kit,
    paths: str | Path | Sequence[str | Path],
    options: Mapping[str, Any] | None = None,
    *,
    training: bool = True,
) -> dict[str, Any]:
    """Load config files with overrides, see `load_config`, and check every name in them.

    The recipes that train its teachers are checked too.

    Args:
        kit: Of the task.
        paths: One python file or several.
        options: Values by dotted path.
        training: Whether what only training needs must be there.

    Raises:
        UserError: If anything is missing or unknown.
    """
    config = load_config(paths, options, known=(*NAMES, *kit.extra_names))
    for stage in stage_configs(config):
        _check(kit, stage, training)
    return config


def stage_configs(config: Config) -> list[dict[str, Any]]:
    """Return the whole config of each stage, or the config itself if it lists none.

    This is for checks and dry runs: what an earlier stage makes is None here.
    """
    stages = _mapping(config.get("stages") or {"": {}}, "stages")
    rest = {name: value for name, value in config.items() if name != "stages"}
    wholes = []
    for position, (name, overrides) in enumerate(stages.items()):
        whole = merge(rest, _mapping(overrides, f"stages.{name}"))
        wholes.append(replace_products(whole, dict.fromkeys(list(stages)[:position])))
    return wholes


def teacher_nodes(config: Config) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the place and a copy of the node of each teacher: of `teachers`, or `teacher` alone.

    A `teacher` that is None is none: so a method with teachers of its own takes leave of a pair's.

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


def _check(kit: Kit, config: Config, training: bool) -> None:
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
    for name, (given, kind) in _NODES.items():
        if name in config:
            _mapping(config[name], name, has_type=True)
            check(config[name], name, given, kind)
    kit.check_model(config["student"], "student")
    for where, node in teacher_nodes(config).values():
        _check_teacher(kit, node, where)
    if "peers" in config:
        _check_peers(kit, config)
    else:
        _check_distiller(config.get("distiller", {}))
    kit.check_extra(config)
    if "trainer" in config:
        given_to_trainer = ("parts", "work_dir", "optimizer", "schedule")
        check_arguments(build_trainer, config["trainer"], "trainer", given_to_trainer)
        if config["trainer"].get("step") is not None:
            _mapping(config["trainer"]["step"], "trainer.step", has_type=True)
            check(config["trainer"]["step"], "trainer.step", ("distiller", "optimizer"), STEP)


def _check_teacher(kit: Kit, node: dict[str, Any], where: str) -> None:
    if "recipe" not in node:
        kit.check_model(node, where)
        return
    recipe = node.pop("recipe")
    for name in kit.of_recipe:
        if name in node:
            raise UserError(f"{where}: {name!r} is what its recipe says; leave one of them out")
    with located(f"{where}.recipe"):
        student = read_config(kit, recipe)["student"]
    kit.check_model({**node, "network": student["network"]}, where)


def _check_peers(kit: Kit, config: Config) -> None:
    if teacher_nodes(config):
        raise UserError("`peers` learn from one another, without a teacher; leave one of them out")
    for name, node in _mapping(config["peers"], "peers").items():
        where = f"peers.{name}"
        kit.check_model(merge(config["student"], _mapping(node, where)), where)
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
