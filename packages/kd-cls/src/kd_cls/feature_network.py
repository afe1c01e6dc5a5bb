"""A network that ends in features: a student of images without labels, and its teachers."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from kd_core.config.places import NetworkNode
from kd_core.errors import UserError
from kd_core.experiment.models import (
    build_task,
    is_pretrained,
    is_trained_here,
    weights_file,
)
from kd_core.networks.batch_names import by_our_names
from kd_core.networks.image_channels import input_channels, statistics_for
from kd_core.networks.image_task import ImageTask, height_and_width
from kd_core.networks.outputs import tensor_in
from kd_core.networks.probe import first_pass, training_pass, untouched
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from torch import Tensor, nn

from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits
from kd_cls.libraries.downloads import loads_pretrained, require_hub
from kd_cls.libraries.feature_fitting import FeatureFitting
from kd_cls.libraries.fitting import key_of
from kd_cls.libraries.pretrained import pretrained_facts
from kd_cls.roles import network_roles
from kd_cls.trained import Trained

_OF_LABELS = ("new_head", "linear_probe", "label_smoothing", "class_weights", "task_views")


class FeatureNetwork(Classifier):
    """Prepares images for a network that returns features; it has no loss of its own.

    Args:
        network: From images [N, 3, H, W], or [N, 1, H, W], to features [N, D]; a teacher's may
            give anything.
        removed: Paths of the classifier's layers, which were left out.
        options: See `Classifier`.
    """

    def __init__(
        self, network: nn.Module, *, removed: tuple[str, ...] = (), **options: Any
    ) -> None:
        super().__init__(network, **options)
        self.removed = removed

    def forward(self, batch: Batch) -> Tensor:
        """Return features [N, D].

        Raises:
            UserError: In training: there is no loss.
        """
        if self.training:
            raise UserError("a network of features has no loss of its own; set task_weight=0")
        return self._predict(by_our_names(batch))

    def run_for_taps(self, batch: Batch) -> None:
        """Run the network."""
        self._predict(batch)

    def check_sample(self, batch: Batch) -> None:
        """Reject float images that are not in [0, 1]; see `ImageTask.check_sample`."""
        ImageTask.check_sample(self, batch)

    def without_role(self, role: str) -> str:
        """Return what to do where a criterion asks for logits."""
        if role != "logits":
            return ""
        return (
            "it ends in features. To learn the logits of a teacher, name their classes: "
            "data.classes=FILE (a name in each line) or their number"
        )

    def _logits(self, images: Tensor) -> Tensor:
        return tensor_in(self.network(images), self.output, self.network)


def refuse_of_labels(where: str, **values: Any) -> None:
    """Reject what a node says of labels, where the images have none; by the name of its key."""
    for name in _OF_LABELS:
        if values.get(name):
            raise UserError(
                f"{where}.{name}: is about labels, which the images of this data do not"
                " have; leave it out"
            )


def build_feature_network(
    data: DataSplits, where: str, /, *, network: NetworkNode, **node: Any
) -> FeatureNetwork:
    """Build a student or teacher for data without classes; see `build_classifier` for its keys.

    The student's classifier is left out; a teacher keeps the one of its weights.
    """
    weights, size = node.get("weights"), node.get("size")
    mean, std, output = node.get("mean"), node.get("std"), node.get("output")
    own = {"network": network, **{key: node.get(key) for key in ("classes", "class_map")}}
    own |= {"mean": mean, "std": std, "size": size}
    trained = Trained.of(where, weights, own, new_head=True)
    pixels = height_and_width(size or trained.facts.size or data.image_size)
    ends_in_features = is_trained_here(where)
    fitting = FeatureFitting(
        torch.zeros(2, len(data.mean), *pixels),
        without_head=ends_in_features,
        file=weights_file(weights),
        head=node.get("head"),
        output=output,
    )
    removed: list[str] = []

    def fit(built: nn.Module) -> nn.Module:
        fitted, paths = fitting.fit(built)
        removed.extend(paths)
        return fitted

    def wrap(built: nn.Module) -> FeatureNetwork:
        said = mean is not None or std is not None
        known = trained.with_pretrained(pretrained_facts(built, network, ()), said=said)
        shift, scale = mean, std
        if not said:
            found = known.facts.mean or data.mean, known.facts.std or data.std
            shift, scale = statistics_for(built, found, where)
        roles: dict[str, Any] = dict(network_roles(built, [pixels]))
        key = key_of(built, output)
        if ends_in_features:
            roles = feature_roles(built, roles, key, len(data.mean), pixels)
        roles |= node.get("roles") or {}
        made = FeatureNetwork(
            built,
            removed=tuple(removed),
            mean=shift,
            std=scale,
            size=size or known.facts.size,
            views_apart=node.get("views_apart", False),
            hold_frozen_norms=node.get("hold_frozen_norms", False),
            output=key,
            roles=roles,
        )
        known.fit(made, data)
        return made

    given = {} if is_pretrained(network) else {"num_classes": 1}
    made = build_task(
        network,
        where,
        pretrained=loads_pretrained(network, weights),
        prepare=fit,
        wrap=wrap,
        reach=partial(require_hub, network),
        **given,
    )
    if removed and ends_in_features:
        distributed.print_note(
            f"{where}: its classifier ({', '.join(removed)}) is left out; it ends in features"
        )
    return made


def feature_roles(
    network: nn.Module,
    roles: Mapping[str, Any],
    output: str | int | None,
    channels: int,
    pixels: tuple[int, int],
) -> dict[str, Any]:
    """Return the roles of a network that ends in features: `pooled` is what it returns.

    Args:
        network: It is run once; nothing in it changes.
        roles: Those that were found or given.
        output: Name or number of the features among the outputs.
        channels: Of the data's images.
        pixels: Height and width of the images.
    """
    whole = "output" if output is None else f"output[{output}]"
    pooled = tap_list(roles.get("pooled") or whole)
    paths = [*pooled, whole]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, input_channels(network, channels), *pixels, generator=generator)
    with untouched(network), FeatureTap(network, paths, copy=paths) as seen:
        network(images)
    same = len(pooled) == 1 and torch.equal(*(torch.as_tensor(seen[path]) for path in paths))
    return {**roles, "pooled": tuple(pooled) if same else (whole,), "logits": ()}


def check_features(network: FeatureNetwork, batch: Batch, where: str) -> None:
    """Reject a student that does not give vectors, or fails in training."""
    shape = tuple(first_pass(network, batch).shape)
    if len(shape) != 2:
        raise UserError(
            f"{where}: {type(network.network).__name__} gives {shape}; wanted features [N, D]: let "
            "it pool them, name its output of that shape (output=...), or wrap it"
        )
    training_pass(network, batch)
