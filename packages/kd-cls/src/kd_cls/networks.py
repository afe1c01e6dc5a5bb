"""Build classifiers from the student and teacher nodes of a config."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torchvision
from kd_core.config.node import Node, parse_call
from kd_core.config.places import NetworkNode
from kd_core.config.values import Deviations, Means, NamesOrFile, Pixels, PositiveInt, Share
from kd_core.errors import UserError, located, nearest
from kd_core.experiment.models import build_task, is_pretrained, require_logits, weights_file
from kd_core.experiment.spec import RANDOM
from kd_core.files.weight_facts import WeightFacts, facts_in
from kd_core.files.weights import load_weights, read_state_dict
from kd_core.networks.class_order import renamed
from kd_core.networks.image_channels import input_channels, statistics_for
from kd_core.networks.image_task import height_and_width
from kd_core.networks.probe import first_pass, materialise, training_pass
from kd_core.networks.task import Batch
from torch import nn

from kd_cls.class_weights import ClassWeights, class_weights_of
from kd_cls.classifier import Classifier, LinearProbe
from kd_cls.data import DataSplits
from kd_cls.data.splits import is_multi_label
from kd_cls.roles import network_roles
from kd_cls.trained import Trained


def build_classifier(
    data: DataSplits,
    where: str,
    /,
    *,
    network: NetworkNode,
    weights: str | None = None,
    classes: NamesOrFile | None = None,
    class_map: Mapping[str, str] | None = None,
    mean: Means | None = None,
    std: Deviations | None = None,
    size: Pixels | None = None,
    new_head: bool = False,
    linear_probe: bool = False,
    label_smoothing: Share = 0.0,
    class_weights: ClassWeights | None = None,
    task_views: PositiveInt | None = None,
    views_apart: bool = False,
    hold_frozen_norms: bool = False,
    roles: Mapping[str, Any] | None = None,
) -> Classifier:
    """Build the classifier of a config node.

    Args:
        data: Gives the number of classes and, unless the node or the network's own pretrained
            weights do, the normalisation.
        where: Place of the node in the config.
        network: Node of any `nn.Module` from images to logits; `num_classes` is filled in, unless
            the network is pretrained or gets a new head.
        weights: File or folder with the network's weights; or "random", which omits pretrained
            ones. What it says of classes and statistics (see `WeightFacts`) is taken, and told,
            unless the node says otherwise; a teacher also takes the size of its images.
        classes: Names of the classes in the order of the weights' logits, which are then brought
            into the data's order; classes that the data lacks are left out. A list, or a text file
            with a name in each line.
        class_map: What the data's classes are called there, where the names differ.
        mean: Of each channel, in [0, 1]; one number for a network that takes grey images.
        std: Standard deviation of each channel, in [0, 1].
        size: Pixels that images are resized to for this network.
        new_head: Replace the last linear layer by a new one for the data's classes, to fine-tune
            a network that was pretrained on others.
        linear_probe: Train only a new head, on a frozen network; see `LinearProbe`. The head in
            the file of `weights` may have other classes.
        label_smoothing: Of the student's own loss.
        class_weights: Of the classes in the student's own loss: "balanced", or one number for each.
        task_views: Number of views of each image in the student's own loss; None for all.
        views_apart: Train on one view after the other, not on all as one batch.
        hold_frozen_norms: Keep the BatchNorms of frozen parts in eval mode.
        roles: Tap paths by role, for networks whose roles are not known.
    """
    own: dict[str, Any] = {"network": network, "classes": classes, "class_map": class_map}
    own |= {"mean": mean, "std": std, "size": size}
    renewed = linear_probe or (new_head and not weights_file(weights))
    trained = Trained.of(where, weights, own, new_head=renewed)
    count = len(trained.names or data.classes)

    pixels = size or data.image_size

    def wrap(built: nn.Module) -> Classifier:
        said = mean is not None or std is not None
        wanted = renamed(data.classes, class_map)
        known = trained.with_pretrained(pretrained_facts(built, network, wanted), said=said)
        shift, scale = mean, std
        if not said:
            found = known.facts.mean or data.mean, known.facts.std or data.std
            shift, scale = statistics_for(built, found, where)
        classifier = (LinearProbe if linear_probe else Classifier)(
            built,
            mean=shift,
            std=scale,
            size=size or known.facts.size,
            label_smoothing=label_smoothing,
            multi_label=is_multi_label(data),
            class_weights=class_weights and class_weights_of(class_weights, data),
            task_views=task_views,
            views_apart=views_apart,
            hold_frozen_norms=hold_frozen_norms,
            roles={**network_roles(built, [height_and_width(pixels)]), **(roles or {})},
        )
        known.fit(classifier, data)
        return classifier

    change = (
        partial(_make_probe, node=network) if linear_probe else partial(_load, new_head=new_head)
    )
    sides = height_and_width(size or trained.facts.size or data.image_size)

    def prepare(built: nn.Module) -> None:
        materialise(built, torch.zeros(2, input_channels(built, len(data.mean)), *sides))
        change(built, weights=weights, num_classes=data.num_classes if linear_probe else count)

    return build_task(
        network,
        where,
        pretrained=weights != RANDOM,
        prepare=prepare,
        wrap=wrap,
        **({} if new_head or is_pretrained(network) else {"num_classes": count}),
    )


def parse_classifier(node: Mapping[str, Any], where: str) -> Node:
    """Check a student's or teacher's node, without building anything, and return it."""
    call = parse_call(build_classifier, node, where, provided=("num_classes",))
    with located(f"{where}.network"):
        torchvision_weights(call["network"])
    return call


def replace_head(network: nn.Module, num_classes: int) -> None:
    """Replace the last linear layer by a newly initialised one."""
    name, head = last_linear(network)
    owner = network.get_submodule(name.rpartition(".")[0])
    setattr(owner, name.rpartition(".")[2], nn.Linear(head.in_features, num_classes))


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return path and module of the last linear layer, whatever its name: the head.

    Raises:
        UserError: If there is none.
    """
    linear = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise UserError(f"new_head: {type(network).__name__} has no linear layer to replace")
    return linear[-1]


def _load(
    built: nn.Module,
    *,
    weights: str | None,
    num_classes: int,
    new_head: bool,
) -> None:
    """Replace the head if it is to be a new one, and load the file of weights if there is one."""
    if new_head:
        replace_head(built, num_classes)
    if file := weights_file(weights):
        load_weights(built, file)


def _make_probe(
    built: nn.Module, *, node: Mapping[str, Any], weights: str | None, num_classes: int
) -> None:
    """Load all but the head, add a new head, and freeze the rest.

    Raises:
        UserError: If the network is not trained, or the file does not fit.
    """
    if not weights and not is_pretrained(node):
        raise UserError(
            "linear_probe: the network was not trained; name a file (weights=..., such as "
            "runs/NAME/student.pth), or a network with pretrained weights"
        )
    if file := weights_file(weights):
        name, head = last_linear(built)
        of_file = read_state_dict(file).get(f"{name}.weight", head.weight)
        replace_head(built, len(of_file))  # so that the whole file must fit
        load_weights(built, file)
    replace_head(built, num_classes)
    built.requires_grad_(False)
    last_linear(built)[1].requires_grad_(True)


def pretrained_facts(
    network: nn.Module, node: Mapping[str, Any], wanted: Sequence[str] = ()
) -> WeightFacts | None:
    """Return what a torchvision or timm network was pretrained with, or None.

    torchvision's names of classes are taken only where all that are `wanted` are among them: a
    folder of ImageNet has others (`n01440764`), in the same order.

    Raises:
        UserError: If timm's `pretrained_cfg` is not what it must be.
    """
    settings = getattr(network, "pretrained_cfg", None)
    if is_pretrained(node) and settings:
        found = facts_in(settings, f"pretrained_cfg of {type(network).__name__}")
        fits = len(found.classes or ()) == getattr(network, "num_classes", None)
        return found if fits else replace(found, classes=None)
    weights = torchvision_weights(node)
    if weights is None:
        return None
    shown = weights.transforms()
    names = weights.meta.get("categories") or []
    known = names if wanted and set(wanted) <= set(names) else None
    source = f"torchvision's {weights}"
    return WeightFacts(source=source, classes=known, mean=shown.mean, std=shown.std)


def torchvision_weights(node: Mapping[str, Any]) -> Any:
    """Return the entry of torchvision's weights enum that a network's node names, or None.

    Raises:
        UserError: If the network has no weights of this name.
    """
    path, name = str(node["type"]).rpartition(".")[::2]
    name = node.get("name", name)  # of torchvision.models.get_model
    known = path.startswith("torchvision.models") and name in torchvision.models.list_models()
    if not known or not is_pretrained(node):
        return None
    choices = torchvision.models.get_model_weights(name)
    chosen = str(node.get("weights") or "DEFAULT").rpartition(".")[2]
    if chosen not in choices.__members__:
        raise UserError(f"{name} has no weights {chosen!r}{nearest(chosen, choices.__members__)}")
    return choices[chosen]


def class_count(classifier: nn.Module, batch: Batch) -> int:
    """Return the number of logits of a classifier, from a pass that does not change it."""
    return int(first_pass(classifier, batch).shape[1])


def check_logits(classifier: nn.Module, batch: Batch, data: DataSplits, where: str) -> None:
    """Reject a student whose logits do not fit the data's classes, before any training."""
    with located(where):
        count = class_count(classifier, batch)
    advice = "classes; give its callable that number, or set new_head=True"
    require_logits(count, data.num_classes, where, advice)
    with located(where):
        training_pass(classifier, batch)
