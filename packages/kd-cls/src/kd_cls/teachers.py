"""Teachers: from weights, from a recipe that is trained first, or random when asked for."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kd_core import distributed
from kd_core.config import load_config
from kd_core.errors import UserError
from kd_core.stages import ensure, key_of
from kd_core.weights import load_weights
from safetensors import safe_open

from kd_cls.assemble import NAMES, check_config, teacher_nodes
from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits
from kd_cls.networks import build_classifier

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
        recipe = node.pop("recipe", None)
        if recipe and "network" not in node:
            node["network"] = load_config(recipe, known=NAMES)["student"]["network"]
        if recipe and not node.get("weights"):
            built[name] = _from_recipe(recipe, node, data, folder, train, where)
        elif not node.get("weights") and not _pretrained(node):
            raise UserError(
                f"{where} has no weights; name a file (weights=...), a recipe to train it first, "
                f'or weights="{RANDOM}" for an untrained one'
            )
        else:
            weights = None if node.get("weights") == RANDOM else node.get("weights")
            built[name] = build_classifier(data, **{**node, "weights": weights}, where=where)
    return built


def recipe_folder(recipe: Any, folder: Path) -> Path:
    """Return where the teacher of a recipe is, or will be, kept."""
    return folder / f"teacher-{key_of(load_config(recipe, known=NAMES))}"


def _from_recipe(
    recipe: Any, node: dict[str, Any], data: DataSplits, folder: Path, train: Train, where: str
) -> Classifier:
    settings = load_config(recipe, known=NAMES)
    check_config(settings)
    product = recipe_folder(recipe, folder)
    if distributed.is_distributed() and not (product / "student.pth").is_file():
        raise UserError(f"{where}: train the recipe first, in one process: {recipe}")
    ensure(product / "student.pth", lambda: train(settings, product), f"{where}: {recipe}")
    with safe_open(product / "student.safetensors", framework="pt") as file:
        facts = {key: json.loads(text) for key, text in file.metadata().items() if key != "format"}
    network = {"num_classes": len(facts["classes"]), **node["network"]}
    arguments = {"mean": facts["mean"], "std": facts["std"], **node, "network": network}
    teacher = build_classifier(data, **arguments, where=where)
    load_weights(teacher.network, product / "student.pth")
    return teacher


def _pretrained(node: Mapping[str, Any]) -> bool:
    network = node.get("network", {})
    return bool(network.get("weights") or network.get("pretrained"))
