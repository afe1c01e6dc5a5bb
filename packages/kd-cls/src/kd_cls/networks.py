"""Build classifiers from the student and teacher nodes of a config."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from kd_core.config.node import Node, parse_call
from kd_core.config.places import NetworkNode
from kd_core.config.values import (
    Deviations,
    Means,
    NamesOrFile,
    NonNegativeInt,
    Pixels,
    PositiveInt,
    Share,
)
from kd_core.data.loader_set import has_labels
from kd_core.errors import UserError, located
from kd_core.experiment.models import build_task, is_pretrained, require_logits, weights_file
from kd_core.networks.class_order import renamed
from kd_core.networks.image_channels import statistics_for
from kd_core.networks.image_task import height_and_width
from kd_core.networks.probe import first_pass, training_pass
from kd_core.networks.task import Batch
from torch import nn

from kd_cls.class_weights import ClassWeights, class_weights_of
from kd_cls.classifier import Classifier, LinearProbe
from kd_cls.data import DataSplits
from kd_cls.data.splits import is_multi_label
from kd_cls.feature_network import (
    FeatureNetwork,
    build_feature_network,
    check_features,
    refuse_of_labels,
)
from kd_cls.libraries.downloads import loads_pretrained, require_hub
from kd_cls.libraries.fitting import Fitting, key_of
from kd_cls.libraries.pretrained import pretrained_facts, torchvision_weights
from kd_cls.libraries.timm_names import resolved
from kd_cls.roles import network_roles
from kd_cls.trained import Trained

UNTRAINED = (
    "linear_probe: the network was not trained; name a file (weights=..., such as "
    "runs/NAME/student.pth), or a network with pretrained weights"
)


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
    head: str | Sequence[str] | None = None,
    output: str | NonNegativeInt | None = None,
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
            ones. What it says of classes and statistics (see `WeightFacts`) is taken, and printed,
            unless the node says otherwise; a teacher also takes the size of its images.
        classes: Names of the classes in the order of the weights' logits, which are then brought
            into the data's order; classes that the data lacks are left out. A list, or a text file
            with a name in each line.
        class_map: What the data's classes are called there, where the names differ.
        mean: Of each channel, in [0, 1]; one number for a network that takes grey images.
        std: Standard deviation of each channel, in [0, 1].
        size: Pixels that images are resized to for this network.
        new_head: Replace the classifier, every head of it, by a new one for the data's classes, to
            fine-tune a network that was pretrained on others. A network that ends in features
            gets a linear layer.
        head: Paths of the layers that `new_head` or `linear_probe` replaces, where they are not
            found or others are wanted; `output` adds a linear layer to what the network gives.
        output: Name or number of the logits, where the network returns a tuple, dict or dataclass.
            With a new head it may name features.
        linear_probe: Train only a new head, on a frozen network; see `LinearProbe`. The head in
            the file of `weights` may have other classes.
        label_smoothing: Of the student's own loss.
        class_weights: Of the classes in the student's own loss: "balanced", or one number for each.
        task_views: Number of views of each image in the student's own loss; None for all.
        views_apart: Train on one view after the other, not on all as one batch.
        hold_frozen_norms: Keep the BatchNorms of frozen parts in eval mode.
        roles: Tap paths by role, for networks whose roles are not known.
    """
    if not has_labels(data):
        about = dict(label_smoothing=label_smoothing, class_weights=class_weights)
        refuse_of_labels(where, **about, task_views=task_views, linear_probe=linear_probe)
    if not data.classes:
        refuse_of_labels(where, new_head=new_head)
        return build_feature_network(
            data,
            where,
            network=network,
            weights=weights,
            classes=classes,
            class_map=class_map,
            mean=mean,
            std=std,
            size=size,
            head=head,
            output=output,
            views_apart=views_apart,
            hold_frozen_norms=hold_frozen_norms,
            roles=roles,
        )
    own: dict[str, Any] = {"network": network, "classes": classes, "class_map": class_map}
    own |= {"mean": mean, "std": std, "size": size}
    if head is not None and not (new_head or linear_probe):
        raise UserError(
            f"{where}: head={head!r} names what is replaced; set new_head=True, or leave it out"
        )
    if linear_probe and not weights and not is_pretrained(network):
        raise UserError(f"{where}: {UNTRAINED}")
    renewed = linear_probe or (new_head and not weights_file(weights))
    trained = Trained.of(where, weights, own, new_head=renewed)
    count = len(trained.names or data.classes)
    pixels = height_and_width(size or trained.facts.size or data.image_size)
    fitting = Fitting(
        data.num_classes if linear_probe else count,
        torch.zeros(2, len(data.mean), *pixels),
        file=weights_file(weights),
        new_head=new_head,
        linear_probe=linear_probe,
        head=head,
        output=output,
    )

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
            output=key_of(built, output),
            roles={**network_roles(built, [pixels]), **(roles or {})},
        )
        known.fit(classifier, data)
        return classifier

    given = {} if new_head or is_pretrained(network) else {"num_classes": count}
    return build_task(
        network,
        where,
        pretrained=loads_pretrained(network, weights),
        prepare=fitting.fit,
        wrap=wrap,
        reach=partial(require_hub, network),
        **given,
    )


def parse_classifier(node: Mapping[str, Any], where: str) -> Node:
    """Check a student's or teacher's node, without building anything, and return it."""
    call = parse_call(build_classifier, node, where, provided=("num_classes",))
    with located(f"{where}.network"):
        torchvision_weights(call["network"])
    network = resolved(call["network"])
    return call if network is call["network"] else call.changed(network=network)


def class_count(classifier: nn.Module, batch: Batch) -> int:
    """Return the number of logits of a classifier, from a pass that does not change it."""
    return int(first_pass(classifier, batch).shape[1])


def check_logits(classifier: nn.Module, batch: Batch, data: DataSplits, where: str) -> None:
    """Reject a student whose logits do not fit the data's classes, before any training."""
    if isinstance(classifier, FeatureNetwork):
        check_features(classifier, batch, where)
        return
    with located(where):
        count = class_count(classifier, batch)
    advice = "classes; give its callable that number, or set new_head=True"
    require_logits(count, data.num_classes, where, advice)
    with located(where):
        training_pass(classifier, batch)
