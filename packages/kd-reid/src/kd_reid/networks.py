"""Build embedders from the student and teacher nodes of a config."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from kd_core.config.node import Node, parse_call
from kd_core.config.places import NetworkNode
from kd_core.config.values import Deviations, HeightWidth, Means, NonNegativeInt, Share
from kd_core.data.loader_set import has_labels
from kd_core.errors import UserError, located
from kd_core.experiment.models import (
    build_task,
    is_trained_here,
    require_logits,
    weights_file,
)
from kd_core.networks.probe import explained, training_pass, untouched
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_reid.data.splits import DataSplits, TrainingSet
from kd_reid.embedder import NO_LOSS, Embedder
from kd_reid.fitting import EmbedderFitting
from kd_reid.metric_losses import FILLED_IN, build_losses, check_batches, nodes_of
from kd_reid.teacher_features import FeatureEmbedder


def build_embedder(
    data: TrainingSet,
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
    output: str | NonNegativeInt | None = None,
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
        output: Name or number of the embedding, or of the tokens, among what a network without a
            classifier returns.
        roles: Tap paths by role, for networks whose roles are not known.
    """
    about = {
        "label_smoothing": label_smoothing,
        "metric_losses": metric_losses,
        "fixed_base_epochs": fixed_base_epochs,
        "bnneck": bnneck,
    }
    given = tuple(name for name, value in about.items() if value)
    if given and is_trained_here(where) and not has_labels(data):
        raise UserError(
            f"{where}.{given[0]}: is about identities, which the images of this data do not have; "
            "leave it out"
        )
    fitting = EmbedderFitting(
        where=where,
        network=network,
        data=data,
        file=weights_file(weights),
        backbone=None if weights else backbone_weights,
        bnneck=bnneck,
        statistics=None if mean is None and std is None else (mean or data.mean, std or data.std),
        size=size,
        output=output,
        roles=roles or {},
        of_identities=given,
    )

    def wrap(built: nn.Module) -> Embedder:
        if fitting.without_head is not None:
            return FeatureEmbedder(built, left_out=fitting.left_out, **fitting.options(built))
        return Embedder(
            built,
            label_smoothing=label_smoothing,
            metric_losses=build_losses(
                metric_losses or {}, f"{where}.metric_losses", partial(fitting.numbers, built)
            ),
            fixed_base_epochs=fixed_base_epochs,
            heads=fitting.heads,
            **fitting.options(built),
        )

    return build_task(
        network,
        where,
        pretrained=not weights and not backbone_weights,
        prepare=fitting.fit,
        wrap=wrap,
        num_classes=fitting.count,
    )


def parse_embedder(node: Mapping[str, Any], where: str) -> Node:
    """Check a student's or teacher's node, without building anything, and return it."""
    if losses := node.get("metric_losses"):
        node = {**node, "metric_losses": nodes_of(losses, f"{where}.metric_losses")}
    call = parse_call(build_embedder, node, where, provided=FILLED_IN)
    if node.get("weights") and node.get("backbone_weights"):
        raise UserError(f"{where}: weights are of the whole network; leave backbone_weights out")
    return call


def check_identities(embedder: nn.Module, batch: Batch, data: TrainingSet, where: str) -> None:
    """Reject a student that cannot be trained on the data's identities, before any training."""
    assert isinstance(embedder, Embedder), "what build_embedder returns"
    if isinstance(embedder, FeatureEmbedder) or not has_labels(data):
        _check_embedding(embedder, batch, where)
        return
    assert isinstance(data, DataSplits), "what has labels"
    network, images = embedder.network, batch["image"]
    with located(where), untouched(embedder), explained(embedder, batch):
        found, own = embedder.embed(images), embedder({"image": images})
    advice = (
        "identities; leave num_classes out of the network's node, and give weights that were "
        "trained on other people as backbone_weights"
    )
    require_logits(found.logits[0].shape[1], data.num_classes, where, advice)
    widths = [[logits.shape[1] for logits in one.logits] for one in (found, own)]
    if (own.logits and widths[0] != widths[1]) or _are_logits(own.embedding, found.logits):
        came = "its logits" if not own.logits else "another pair than in training"
        raise UserError(
            f"{where}: {type(network).__name__} returns {came} in evaluation; wanted the "
            "embedding [N, D] that images are searched by, or logits and embedding"
        )
    if embedder.metric_losses:
        check_batches(data, f"{where}.metric_losses")
    if not embedder.changes_data:  # which needs its moving average
        with located(where):
            training_pass(embedder, batch)


def require_loss(embedder: nn.Module, where: str) -> None:
    """Reject a student without logits of identities, which is to learn from labels too."""
    if isinstance(embedder, FeatureEmbedder):
        raise UserError(f"{where}: {type(embedder.network).__name__} {NO_LOSS}")


def _check_embedding(embedder: Embedder, batch: Batch, where: str) -> None:
    """Reject a student that does not give vectors, or fails in training."""
    with located(where), untouched(embedder), explained(embedder, batch):
        shape = list(embedder({"image": batch["image"]}).embedding.shape)
    if len(shape) != 2:
        raise UserError(
            f"{where}: {type(embedder.network).__name__} gives {shape}; wanted the embedding "
            "[N, D]: let it pool them, or name a tap that does (roles.embedding=TAP:mean)"
        )
    with located(where):
        training_pass(embedder, batch)


def _are_logits(embedding: Tensor, logits: Sequence[Tensor]) -> bool:
    return any(torch.equal(embedding, one) for one in logits)
