"""Load models from their texts on the command line."""

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from kd_core.config.kinds import MODULE
from kd_core.config.locate import locate
from kd_core.config.node import parse
from kd_core.config.reading import load_config
from kd_core.errors import UserError, located, nearest
from kd_core.experiment.models import is_pretrained, without_pretrained
from kd_core.experiment.spec import RANDOM
from kd_core.files.artifacts import find_student
from kd_core.files.weight_facts import facts_of
from kd_core.networks.image_channels import per_channel, statistics_for
from kd_core.runtime.console import err

from kd_cls.class_names import match_classes
from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits
from kd_cls.libraries.pretrained import pretrained_facts
from kd_cls.models import MODELS
from kd_cls.networks import (
    build_classifier,
    class_count,
    parse_classifier,
)
from kd_cls.student import classes_of, load_student, read_facts

NETWORKS = Path("configs/cls/networks")
PRETRAINED = "pretrained"

_FORMS = (
    "a model is a finished run's folder, its student.safetensors, or NAME=FILE, NAME=pretrained or "
    "NAME=random"
)


def load_model(spec: str, data: DataSplits, *, networks: str | Path = NETWORKS) -> Classifier:
    """Build the classifier that a text names, in evaluation mode on the data's device.

    Args:
        spec: One of

            * a finished run's folder, or its `student.safetensors`;
            * `NAME=FILE`: NAME is a network of the zoo, a file of `networks` without its ending, or
              an import path such as `torchvision.models.resnet18`; FILE any checkpoint that
              `kd_core.files.weights.load_weights` reads;
            * `NAME=pretrained`, with the weights that torchvision or timm have for it;
            * `NAME=random`, newly initialised, the same every time.
        data: The classes that the model must have; its statistics where the model has none.
        networks: Folder of network configs.

    Raises:
        UserError: If there is no such model, it does not fit, or it has other classes.
    """
    with located(f"model {spec!r}"):
        if Path(spec).expanduser().exists() or "=" not in spec:
            classifier = _finished(spec, data, Path(networks))
        else:
            name, _, weights = spec.partition("=")
            classifier = _named(name, weights, data, Path(networks))
        classifier = classifier.to(data.test.device).eval()
        count = class_count(classifier, data.test.sample(1))
        if count != data.num_classes:
            raise UserError(
                f"the network gives {count} logits, the data has {data.num_classes} classes; "
                "name weights that were trained on these classes"
            )
    return classifier


def labels_of(specs: Sequence[str], given: Sequence[str] | None = None) -> list[str]:
    """Return a short name of every model, all different.

    Args:
        specs: See `load_model`.
        given: The user's own names; None takes those of the runs and networks.

    Raises:
        UserError: If there are more or fewer names than models, or a name is repeated.
    """
    if given is not None and len(given) != len(specs):
        raise UserError(f"--labels: wanted {len(specs)} names, one a model, got {len(given)}")
    labels = list(given) if given is not None else [_label(spec) for spec in specs]
    if given is None and len(set(labels)) < len(labels):
        labels = list(specs)
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"two models are called {twice[0]!r}; name them with --labels")
    return labels


def _label(spec: str) -> str:
    path = Path(spec).expanduser()
    if path.exists():
        path = path.resolve()
        return path.parent.name if path.is_file() else path.name
    name, _, weights = spec.partition("=")
    short = name.rpartition(".")[2]
    return f"{short} ({weights})" if weights in (RANDOM, PRETRAINED) else short


def _finished(spec: str, data: DataSplits, networks: Path) -> Classifier:
    path = Path(spec).expanduser()
    if not path.exists():
        known = _names(networks)
        if spec in known:
            raise UserError(f"with which weights? Write {spec}=FILE, or {spec}={RANDOM}")
        nearby = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"there is no such file{nearest(path.name, [*nearby, *known])}; {_FORMS}")
    if path.is_file() and path.suffix != ".safetensors":
        raise UserError(f"such a file does not name its network; write NAME={spec}")
    file = find_student(path)
    names = classes_of(read_facts(file), file)
    trained = load_student(path)
    if set(names) >= set(data.classes):
        if done := match_classes(trained, names, data):
            err.print(f"{spec}{done}")
    else:
        _compare_classes(spec, names, data.classes)
    return trained


def _named(name: str, weights: str, data: DataSplits, networks: Path) -> Classifier:
    if not weights:
        raise UserError(f"with which weights? Write {name}=FILE, or {name}={RANDOM}")
    node = _node(name, networks)
    parse_classifier(node, name)
    if weights == PRETRAINED:
        return build_classifier(data, name, **_pretrained(name, node))
    stated = {"mean", "std"} & node.keys()
    plain = {**node, "network": without_pretrained(node["network"]), "weights": weights}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = build_classifier(data, name, **plain)
    # Fine-tuned from pretrained weights: it was trained with their normalisation.
    found = None if stated else pretrained_facts(classifier.network, node["network"])
    if (
        found is None
        or found.mean is None
        or found.std is None
        or (weights != RANDOM and facts_of(weights).mean)
    ):
        return classifier
    mean, std = statistics_for(classifier.network, (found.mean, found.std), name)
    classifier.mean, classifier.std = per_channel(mean, "mean"), per_channel(std, "std")
    return classifier


def _node(name: str, networks: Path) -> dict[str, Any]:
    """Return the node of a classifier without its weights."""
    if name in MODELS:
        return {"network": {"type": "kd_cls.models.build_model", "name": name}}
    file = networks / f"{name}.py"
    if file.is_file():
        student = load_config(file).get("student", {})
        parse(student.get("network"), f"{file}: student.network", kind=MODULE)
        return {key: value for key, value in student.items() if key != "weights"}
    if "." not in name:
        known = _names(networks)
        near = [k for k in known if k.lower().startswith(name.lower())]
        hint = nearest(name, near or known)
        raise UserError(
            f"no network is called {name!r}{hint}; others are named by their import path, such as "
            "torchvision.models.resnet18"
        )
    return {"network": {"type": name}}


def _pretrained(name: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node that asks torchvision or timm for their weights, with the head they have."""
    network = node["network"]
    if not is_pretrained(network):
        asks = {"weights": "DEFAULT", "pretrained": True}
        offered = signature(locate(network["type"])).parameters
        argument = next((key for key in asks if key in offered), None)
        if argument is None:
            raise UserError(f"{name} has no pretrained weights to ask for; write {name}=FILE")
        network = {**network, argument: asks[argument]}
    return {**{k: v for k, v in node.items() if k != "new_head"}, "network": network}


def _names(networks: Path) -> set[str]:
    return {*MODELS, *(file.stem for file in networks.glob("*.py"))}


def _compare_classes(spec: str, trained: Iterable[str], shown: Sequence[str]) -> None:
    """Warn of names that cannot be matched: they may be spelt differently, in the same order."""
    pairs = [(ours, theirs) for ours, theirs in zip(trained, shown, strict=False) if ours != theirs]
    if pairs:
        ours, theirs = pairs[0]
        err.print(
            f"warning: {spec} calls a class {ours!r} that the data calls {theirs!r} "
            f"({len(pairs)} differ); its order must be the same"
        )
