"""Teachers: from weights, from a recipe that is trained first, or random when asked for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kd_core import distributed
from kd_core.config import load_config
from kd_core.errors import UserError
from kd_core.stages import ensure, key_of

from kd_cls.assemble import NAMES, check_config, teacher_nodes
from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits
from kd_cls.networks import build_classifier
from kd_cls.student import find_student, load_student, read_facts

Train = Callable[[dict[str, Any], Path], Any]
RANDOM = "random"


def build_teachers(
    config: Mapping[str, Any],
    data: DataSplits,
    folder: Path,
    train: Train,
    *,
    untrained: bool = False,
) -> dict[str, Classifier]:
    """Build the teachers of a config, training those whose recipe was not run yet.

    A teacher node has the keys of `build_classifier`; its `weights` are a file or, to say that an
    untrained teacher is meant, "random". Instead it may name a `recipe`: the config file (or files)
    of its own training, whose result is kept in `folder` and reused by every student.

    Args:
        config: A checked config.
        data: Of the student; gives classes and statistics that the node leaves open.
        folder: Where trained teachers are kept, named by the hash of their recipe.
        train: Trains a config in a folder, resuming what is there.
        untrained: Neither load nor train weights; for a dry run.
    """
    built = {}
    for name, node in teacher_nodes(config).items():
        where = f"teacher {name!r}"
        if untrained:
            node["weights"] = RANDOM
        recipe = node.get("recipe")
        if recipe and not node.get("weights"):
            built[name] = _from_recipe(recipe, node, folder, train, where)
            continue
        node = _with_recipe(node) if recipe else node
        if not node.get("weights") and not _pretrained(node):
            raise UserError(
                f"{where} has no weights; name a file (weights=...), a recipe to train it first, "
                f'or weights="{RANDOM}" for an untrained one'
            )
        weights = None if node.get("weights") == RANDOM else node.get("weights")
        arguments = {key: value for key, value in node.items() if key != "recipe"}
        built[name] = build_classifier(data, **{**arguments, "weights": weights}, where=where)
    return built


def unfinished(config: Mapping[str, Any], folder: Path) -> bool:
    """Tell whether a teacher has to be trained first."""
    return any(
        node.get("recipe")
        and not node.get("weights")
        and not (recipe_folder(node["recipe"], folder) / "student.pth").is_file()
        for node in teacher_nodes(config).values()
    )


def recipe_folder(recipe: Any, folder: Path) -> Path:
    """Return where the teacher of a recipe is, or will be, kept."""
    return folder / f"teacher-{key_of(load_config(recipe, known=NAMES))}"


def _from_recipe(
    recipe: Any, node: dict[str, Any], folder: Path, train: Train, where: str
) -> Classifier:
    product = recipe_folder(recipe, folder)
    settings = load_config(recipe, known=NAMES)
    check_config(settings)
    if distributed.is_distributed() and not (product / "student.pth").is_file():
        raise UserError(f"{where}: train the recipe first, in one process: {recipe}")
    ensure(product / "student.pth", partial(train, settings, product), f"{where}: training it")
    trained = load_student(product)
    facts = read_facts(find_student(product))
    given = {"mean": facts["mean"], "std": facts["std"], "size": facts["image_size"]}
    return Classifier(trained.network, **{name: node.get(name, given[name]) for name in given})


def _with_recipe(node: dict[str, Any]) -> dict[str, Any]:
    """Fill in what the recipe says of the network, for weights that come from elsewhere."""
    student = load_config(node["recipe"], known=NAMES)["student"]
    names = ("network", "new_head", "mean", "std", "size")
    return {**{name: student[name] for name in names if name in student}, **node}


def _pretrained(node: Mapping[str, Any]) -> bool:
    network = node.get("network", {})
    return bool(network.get("weights") or network.get("pretrained"))
