"""Build embedders from the student and teacher nodes of a config."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from kd_core.config.build import build_network
from kd_core.config.node import Node, parse_call
from kd_core.config.places import NetworkNode
from kd_core.config.values import Deviations, HeightWidth, Means, NonNegativeInt, Share
from kd_core.errors import UserError, located
from kd_core.experiment.models import build_task, require_logits, weights_file
from kd_core.networks.image_channels import statistics_for
from kd_core.networks.probe import first_pass
from kd_core.networks.task import Batch
from torch import nn

from kd_reid.data.splits import DataSplits
from kd_reid.embedder import Embedder, Embedding
from kd_reid.neck import attach
from kd_reid.roles import network_roles
from kd_reid.weights import identities_in, load_backbone, load_checkpoint


def build_embedder(
    data: DataSplits,
    where: str,
    /,
    *,
    network: NetworkNode,
    weights: str | None = None,
    backbone_weights: str | None = None,
    bnneck: bool = False,
    mean: Means | None = None,
    std: Deviations | None = None,
    size: HeightWidth | None = None,
    label_smoothing: Share = 0.0,
    metric_losses: Mapping[str, NetworkNode] | None = None,
    fixed_base_epochs: NonNegativeInt = 0,
    roles: Mapping[str, Any] | None = None,
) -> Embedder:
    """Build the embedder of a config node.

    Args:
        data: Gives the number of identities and, unless the node does, the normalisation.
        where: Place of the node in the config.
        network: Node of a network, see `Embedder`; `num_classes` is filled in from the file of its
            weights (a teacher may have other people), or else from the data.
        weights: File with the network's weights, with `neck.pth` beside it if it is of the plain
            network and `bnneck` is set; or "random", which omits pretrained ones.
        backbone_weights: File with weights of everything but the classifier, such as those
            that torchreid trained on ImageNet.
        bnneck: Put a `BNNeck` before the classifier.
        mean: Of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
        size: Height and width that images are resized to for this network.
        label_smoothing: Of the student's own `id` loss.
        metric_losses: Nodes of the student's losses on embeddings, by name.
        fixed_base_epochs: See `Embedder`.
        roles: Tap paths by role, for networks whose roles are not known.
    """
    file = weights_file(weights)
    identities = identities_in(file) if file else None

    def wrap(built: nn.Module) -> Embedder:
        losses = metric_losses or {}
        shift, scale = mean, std
        if mean is None and std is None:
            shift, scale = statistics_for(built, (data.mean, data.std), where)
        return Embedder(
            built,
            mean=shift or data.mean,
            std=scale or data.std,
            size=size,
            label_smoothing=label_smoothing,
            metric_losses={
                name: build_network(node, f"metric_losses.{name}") for name, node in losses.items()
            },
            fixed_base_epochs=fixed_base_epochs,
            roles={**network_roles(built), **(roles or {})},
        )

    return build_task(
        network,
        where,
        pretrained=not weights and not backbone_weights,
        prepare=partial(
            _load, backbone=None if weights else backbone_weights, bnneck=bnneck, file=file
        ),
        wrap=wrap,
        num_classes=identities or data.num_classes,
    )


def _load(built: nn.Module, *, backbone: str | None, bnneck: bool, file: str | None) -> nn.Module:
    """Load the backbone, attach the neck, and load the whole: each if it is wanted."""
    if backbone:
        load_backbone(built, backbone)
    if bnneck:
        attach(built)
    if file:
        load_checkpoint(built, file)
    return built


def parse_embedder(node: Mapping[str, Any], where: str) -> Node:
    """Check a student's or teacher's node, without building anything, and return it."""
    call = parse_call(build_embedder, node, where, provided=("num_classes",))
    if node.get("weights") and node.get("backbone_weights"):
        raise UserError(f"{where}: weights are of the whole network; leave backbone_weights out")
    return call


def check_identities(embedder: nn.Module, batch: Batch, data: DataSplits, where: str) -> None:
    """Reject a student whose logits do not fit the data's identities, before any training."""
    with located(where):
        found: Embedding = first_pass(embedder, batch)
    advice = (
        "identities; leave num_classes out of the network's node, and give weights that were "
        "trained on other people as backbone_weights"
    )
    require_logits(found.logits[0].shape[1], data.num_classes, where, advice)
