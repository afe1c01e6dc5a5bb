"""Teachers: from weights, from a recipe that is trained first, or random when asked for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.config.reading import merge
from kd_core.config.trust import names_in
from kd_core.config.trusted import trusting
from kd_core.errors import UserError
from kd_core.experiment.adapter import RANDOM, TaskAdapter
from kd_core.experiment.differences import with_contents
from kd_core.experiment.phases import ensure, is_finished, key_of
from kd_core.experiment.spec import read_config, teacher_nodes
from kd_core.networks.task import Task
from kd_core.runtime.seed import mix, seed_everything

Train = Callable[[dict[str, Any], Path], Any]


def build_teachers(
    adapter: TaskAdapter,
    config: Mapping[str, Any],
    seed: int,
    data: Any,
    folder: Path,
    train: Train,
    *,
    untrained: bool = False,
    own_data: Callable[[Mapping[str, Any]], Any] | None = None,
) -> dict[str, Task]:
    """Build the teachers of a config, training those whose recipe was not run yet.

    A teacher node has the keys of the adapter's `build_model`; its `weights` are a file or, to say
    that an untrained teacher is meant, "random". Instead of a network it may name a `config`: the
    config file (or files) of its own training, whose result is kept in `folder` and reused by
    every student. Weights that come with a recipe are taken instead of training it.

    Args:
        adapter: Of the task.
        config: A checked config.
        seed: Of what is random in a teacher: all of an untrained one, or a new head.
        data: Of the student; gives classes and statistics that the node leaves open.
        folder: Where trained teachers are kept, named by the hash of their recipe.
        train: Trains a config in a folder, resuming what is there.
        untrained: Neither load nor train weights; for a dry run.
        own_data: Gives the data of a recipe that was not run yet, so that its untrained teacher
            has the classes which the trained one will have; None takes the student's data.

    Raises:
        UserError: If a teacher has no weights, or they do not fit.
    """
    built = {}
    for name, (where, node) in teacher_nodes(config).items():
        of_teacher = data
        if own_data is not None and _missing(adapter, node, folder):
            of_teacher = own_data(read_config(adapter, node["config"]))
        if untrained:
            node["weights"] = RANDOM
        recipe = node.pop("config", None)
        if recipe and not node.get("weights"):
            built[name] = _from_config(adapter, recipe, node, folder, train, where)
            continue
        if recipe:
            node = {**_network_of(adapter, recipe), **node}
        if not node.get("weights") and not adapter.is_pretrained(node["network"]):
            raise UserError(
                f"{where}: no weights; name a file (weights=...), a recipe to train it first, "
                f'or weights="{RANDOM}" for an untrained one'
            )
        seed_everything(mix(seed, 0))  # whether or not another was trained just now
        built[name] = adapter.build_model(of_teacher, where, **node)
    return built


def unfinished(adapter: TaskAdapter, config: Mapping[str, Any], folder: Path) -> list[Path]:
    """Return where the teachers will be that have to be trained first."""
    nodes = [node for _, node in teacher_nodes(config).values()]
    return [path for node in nodes if (path := _missing(adapter, node, folder))]


def teacher_folder(adapter: TaskAdapter, recipe: Any, folder: Path) -> Path:
    """Return where the teacher of a recipe is, or will be, kept."""
    return _teacher_place(adapter, recipe, folder)[0]


def recorded(adapter: TaskAdapter, config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return what makes a run, to be kept beside it: see `kd_core.experiment.identity`.

    The settings of its last phase are at the top, those of earlier ones under `phases`; in the
    place of a teacher's recipe is what the recipe says, in that of a file its name and hash.
    """
    rest = {name: value for name, value in config.items() if name != "phases"}
    *earlier, last = config.get("phases", {}).items() or [("", {})]
    whole = with_teacher_configs(adapter, {**merge(rest, last[1]), "seed": seed})
    if earlier:
        phases = {
            name: with_teacher_configs(adapter, merge(rest, overrides))
            for name, overrides in earlier
        }
        whole["phases"] = phases
    found: dict[str, Any] = with_contents(whole)
    return found


def with_teacher_configs(adapter: TaskAdapter, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put what the teachers' recipes say in the place of their paths."""
    whole = dict(settings)
    for where, node in teacher_nodes(settings).values():
        top, *inner = where.split(".", 1)
        if "config" in node:
            recipe = with_teacher_configs(adapter, read_config(adapter, node["config"]))
            known = {**node, "config": recipe}
            whole[top] = {**whole[top], inner[0]: known} if inner else known
    return whole


def phase_place(
    adapter: TaskAdapter,
    work_dir: Path,
    shared: Path,
    seed: int,
    name: str,
    settings: Mapping[str, Any],
) -> tuple[Path, dict[str, Any]]:
    """Return where a phase is kept, `<name>-<key>`, and what its key hashes.

    Of a teacher's recipe, what it says counts, not its path. A phase of the teachers alone (see
    `is_of_teachers`) is in `shared`, student and seed left out of the key: every student, seed and
    run of these teachers takes it from there. Any other is in the run's own folder.

    Args:
        adapter: Of the task.
        work_dir: Folder of the run.
        shared: Folder of teachers.
        seed: Of the run.
        name: Of the phase.
        settings: Its whole config.
    """
    made_by = with_contents(with_teacher_configs(adapter, {**settings, "seed": seed}))
    if is_of_teachers(settings):
        work_dir = shared
        made_by = {key: made_by[key] for key in made_by if key not in ("student", "seed")}
    return work_dir / f"{name}-{key_of(made_by)}", made_by


def is_of_teachers(settings: Mapping[str, Any]) -> bool:
    """Return whether a phase trains only criteria, and these look only at teachers.

    A teacher with random weights differs with the seed of the run, so its phase is the run's own.
    """
    distiller = settings.get("distiller", {})
    terms = distiller.get("terms", {}).values()
    blind = all("student" in term and not term["student"] for term in terms)
    random = any(node.get("weights") == RANDOM for _, node in teacher_nodes(settings).values())
    return distiller.get("train_student") is False and blind and not random


def _missing(adapter: TaskAdapter, node: Mapping[str, Any], folder: Path) -> Path | None:
    """Return where a node's teacher will be, if its recipe has to be run first."""
    if "config" not in node or node.get("weights"):
        return None
    path, made_by = _teacher_place(adapter, node["config"], folder)
    return None if is_finished(path, made_by) else path


def _teacher_place(adapter: TaskAdapter, recipe: Any, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return where the teacher of a recipe is kept, and what its name hashes."""
    config = read_config(adapter, recipe)
    made_by = recorded(adapter, config, config.get("seed", 0))
    return folder / f"teacher-{key_of(made_by)}", made_by


def _from_config(
    adapter: TaskAdapter, recipe: Any, node: dict[str, Any], folder: Path, train: Train, where: str
) -> Task:
    product, made_by = _teacher_place(adapter, recipe, folder)
    settings = read_config(adapter, recipe)
    training = partial(train, settings, product)
    ensure(product, made_by, training, f"training of {where}")
    with trusting(*names_in(settings["student"])):  # the recipe is ours; its product need not be
        return adapter.load_finished(product, node)


def _network_of(adapter: TaskAdapter, recipe: Any) -> dict[str, Any]:
    """Return what a recipe says of its network, for weights that come from elsewhere."""
    student = read_config(adapter, recipe)["student"]
    return {name: student[name] for name in adapter.of_network if name in student}
