"""From a config's student or teacher node to a classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import torchvision
from kd_core.build import build, check_arguments
from kd_core.errors import UserError
from kd_core.probe import untouched
from kd_core.task import Batch
from kd_core.weights import load_weights
from torch import nn

from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits


def build_classifier(
    data: DataSplits,
    *,
    network: Mapping[str, Any],
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    new_head: bool = False,
    label_smoothing: float = 0.0,
    where: str = "",
) -> Classifier:
    """Build the classifier of a config node.

    Args:
        data: Gives the number of classes and, unless the node or the network's own pretrained
            weights do, the normalisation.
        network: Node of any `nn.Module` from images to logits; `num_classes` is filled in.
        weights: File with the network's weights.
        mean: Of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
        size: Pixels that images are resized to for this network.
        new_head: Replace the last linear layer by a new one for the data's classes, to fine-tune
            a network that was pretrained on others.
        label_smoothing: Of the student's own loss.
        where: Place of the node in the config.
    """
    pretrained = network.get("weights") or network.get("pretrained")
    if new_head or pretrained:
        # Pretrained weights fix the number of classes; a new head then changes it.
        built = build(network, where=f"{where}.network")
    else:
        built = build(network, where=f"{where}.network", num_classes=data.num_classes)
    if not isinstance(built, nn.Module):
        raise UserError(
            f"{where}.network: {network['type']} gave a {type(built).__name__}, no module"
        )
    if new_head:
        replace_head(built, data.num_classes)
    if weights:
        load_weights(built, weights)
    if mean is None and std is None:
        mean, std = pretrained_statistics(built, network) or (data.mean, data.std)
    return Classifier(built, mean=mean, std=std, size=size, label_smoothing=label_smoothing)


def check_classifier(node: Mapping[str, Any], where: str, provided: Sequence[str] = ()) -> None:
    """Check the keys of a student or teacher node; the network's own are checked with all nodes."""
    check_arguments(build_classifier, node, where, provided=("data", *provided))


def replace_head(network: nn.Module, num_classes: int) -> None:
    """Replace the last linear layer by a freshly initialised one."""
    linear = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise UserError(f"new_head: {type(network).__name__} has no linear layer to replace")
    name, head = linear[-1]
    owner = network.get_submodule(name.rpartition(".")[0])
    setattr(owner, name.rpartition(".")[2], nn.Linear(head.in_features, num_classes))


def pretrained_statistics(
    network: nn.Module, node: Mapping[str, Any]
) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the mean and std that a torchvision or timm network was pretrained with, or None."""
    settings = getattr(network, "pretrained_cfg", None)
    if node.get("pretrained") and settings:
        return settings["mean"], settings["std"]
    if node.get("weights") and str(node["type"]).startswith("torchvision.models."):
        name = str(node["type"]).rpartition(".")[2]
        choices = torchvision.models.get_model_weights(name)
        transform = choices[str(node["weights"]).rpartition(".")[2]].transforms()
        return transform.mean, transform.std
    return None


def class_count(classifier: nn.Module, batch: Batch) -> int:
    """Return how many logits a classifier gives, running it on a batch without a trace."""
    with untouched(classifier):
        return int(classifier(batch).shape[1])


def check_logits(classifier: nn.Module, batch: Batch, data: DataSplits, where: str) -> None:
    """Refuse a student whose logits do not fit the data's classes, before any training."""
    count = class_count(classifier, batch)
    if count != data.num_classes:
        raise UserError(
            f"{where}: the network gives {count} logits, the data has {data.num_classes} classes; "
            "give its callable that number, or set new_head=True"
        )
