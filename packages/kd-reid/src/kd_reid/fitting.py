"""Fit a built network to its node: heads, necks, weights, size and statistics of its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from kd_core.config.build import build_network
from kd_core.data.loader_set import has_labels
from kd_core.errors import UserError
from kd_core.experiment.models import is_pretrained, is_trained_here, without_pretrained
from kd_core.files.weight_facts import WeightFacts, facts_in, facts_of
from kd_core.files.weights import matching_state
from kd_core.networks.image_channels import input_channels, statistics_for
from kd_core.networks.probe import untouched
from kd_core.runtime import distributed
from kd_core.runtime.failures import first_line
from torch import Tensor, nn

from kd_reid.data.splits import TrainingSet
from kd_reid.fixed_sizes import fixed_size
from kd_reid.heads import Heads, batch_of, find_heads
from kd_reid.neck import attach
from kd_reid.outputs import all_outputs, training_pair
from kd_reid.roles import network_roles
from kd_reid.teacher_features import FeatureFitting, feature_roles, last_linear
from kd_reid.weights import identities_in, load_backbone, load_checkpoint

Statistics = tuple[Sequence[float], Sequence[float]]


@dataclass
class EmbedderFitting:
    """What a node says of its network.

    Args:
        where: Place of the node in the config.
        network: Node of the network.
        data: Of the run.
        file: Weights of the whole, or None.
        backbone: Weights without those of the classifier, or None.
        bnneck: Whether to put a `BNNeck` before the classifier.
        statistics: Mean and std, if the node says them.
        size: Height and width, if the node says them.
        output: See `feature_roles`.
        roles: Those of the node.
        of_identities: Keys of a student's node that need logits of identities, as far as given.
    """

    where: str
    network: Mapping[str, Any]
    data: TrainingSet
    file: str | None
    backbone: str | None
    bnneck: bool
    statistics: Statistics | None
    size: Sequence[int] | None
    output: str | int | None
    roles: Mapping[str, Any]
    of_identities: tuple[str, ...] = ()
    heads: Heads = Heads((), ())  # noqa: RUF009 - a tuple
    without_head: Mapping[str, Any] | None = None
    """Roles of a network that has features alone."""
    left_out: tuple[str, ...] = ()
    """Paths of the classifier that such a network had."""

    @cached_property
    def count(self) -> int:
        """Identities that the network is built for: of its weights, or else of the data."""
        found = identities_in(self.file) if self.file else None
        return found or self.data.num_classes or 1

    @cached_property
    def facts(self) -> WeightFacts:
        """What the file of a teacher says of its training."""
        if is_trained_here(self.where) or not self.file:
            return WeightFacts()
        given = {"mean": self.statistics, "std": self.statistics, "image_size": self.size}
        return facts_of(self.file, known=["classes", *(k for k, v in given.items() if v)])

    def fit(self, network: nn.Module) -> nn.Module:
        """Return the network with its neck and weights; of a teacher perhaps without classifier."""
        if not is_trained_here(self.where):
            self._take_size(network)
        images = self._images(network)
        self.heads = find_heads(network, images)
        if self._has_features_alone(network, images):
            return self._without_head(network, images)
        if self.output is not None:
            raise UserError("output is for a network that gives no logits; leave it out")
        if self._learns_without_labels:
            return self._bare(network, images, self.heads.paths)
        if self.backbone:
            load_backbone(network, self.backbone, self.heads)
        if self.bnneck:
            attach(network)
            self.heads = find_heads(network, images)
        if self.file:
            self._renew_head(network, self.file)
            load_checkpoint(network, self.file)
        return network

    def options(self, network: nn.Module) -> dict[str, Any]:
        """Return normalisation, size and roles, as `Embedder` takes them."""
        mean, std = self._statistics(network)
        return {
            "mean": mean,
            "std": std,
            "size": self.size,
            "roles": {
                **(self.without_head or network_roles(network, self.heads.paths)),
                **({"logits": ()} if self._learns_without_labels else {}),
                **self.roles,
            },
        }

    def numbers(self, network: nn.Module) -> dict[str, int]:
        """Return the numbers that losses on embeddings may need."""
        images = self._images(network)
        try:
            with untouched(network), all_outputs(network):
                features = training_pair(network(images), network).features
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"{type(network).__name__} failed in a first pass, fed {list(images.shape)}: "
                f"{first_line(error)}; if it wants images of another size, set `size` of its node"
            ) from error
        width = features[0].shape[1]
        count = self.data.num_classes
        return {"num_classes": count, "embedding_size": width, "descriptors_dim": width}

    def _images(self, network: nn.Module) -> Tensor:
        height, width = self.size or self.data.image_size
        return batch_of(2, input_channels(network), (height, width))

    def _take_size(self, network: nn.Module) -> None:
        """Take the size of the weights' images, or the only one that a transformer can take."""
        found, source = self.facts.size, self.facts.source
        if self.size is None and found is None:
            found, source = fixed_size(network), type(network).__name__
        if self.size is None and found is not None:
            self.size = (found, found) if isinstance(found, int) else tuple(found)
            if self.size != tuple(self.data.image_size):
                height, width = self.size
                distributed.print_note(
                    f"{self.where}: its images are resized to {height} x {width}, from {source}"
                )

    def _statistics(self, network: nn.Module) -> Statistics:
        if self.statistics is not None:
            return self.statistics
        facts = self.facts
        settings = getattr(network, "pretrained_cfg", None)
        if facts.mean is None and is_pretrained(self.network) and isinstance(settings, Mapping):
            facts = facts_in(settings, f"pretrained_cfg of {type(network).__name__}", ["classes"])
        found = facts.mean or self.data.mean, facts.std or self.data.std
        if facts.mean and not is_trained_here(self.where):
            distributed.print_note(f"{self.where}: mean and std from {facts.source}")
        return statistics_for(network, found, self.where)

    @property
    def _learns_without_labels(self) -> bool:
        return is_trained_here(self.where) and not has_labels(self.data)

    def _has_features_alone(self, network: nn.Module, images: Tensor) -> bool:
        if is_trained_here(self.where):
            return self._learns_features_alone(network, images)
        if not self.heads.gives_pair:
            return not self.bnneck
        if not self.file or self.bnneck or not self.heads.paths:
            return False
        state = matching_state(self.file, network.state_dict(), silent=True)
        return not any(name.startswith(f"{path}.") for name in state for path in self.heads.paths)

    def _learns_features_alone(self, network: nn.Module, images: Tensor) -> bool:
        """Return whether a student gives an embedding and no logits.

        Where there are labels, that must be clear: else its first pass reports what is wrong.
        """
        if self.heads.gives_pair or self.of_identities:
            return False
        try:
            with untouched(network):
                given = network(images)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            return False  # a first pass says later what is wrong
        is_matrix = isinstance(given, Tensor) and given.dim() == 2
        named = self.output is not None or "embedding" in self.roles
        return is_matrix or named or not has_labels(self.data)

    def _bare(self, network: nn.Module, images: Tensor, paths: tuple[str, ...]) -> nn.Module:
        """Return a network without its classifier, with the weights of the node."""
        own = is_trained_here(self.where)
        file = self.file or (self.backbone if own else None)
        fitting = FeatureFitting(self.where, images, file, is_student=own)
        network = fitting.fit(network, paths)
        for line in fitting.notes:
            distributed.print_note(f"{self.where}: {line}")
        self.left_out = paths
        return network

    def _without_head(self, network: nn.Module, images: Tensor) -> nn.Module:
        paths = self.heads.paths if self.heads.gives_pair else self._classifier(network, images)
        network = self._bare(network, images, paths)
        self.heads = Heads((), ())
        if "embedding" not in self.roles:
            self.without_head = feature_roles(network, images, self.output)
        else:
            path = self.roles["embedding"]
            path = (path,) if isinstance(path, str) else tuple(path)
            self.without_head = {"logits": (), "pooled": path, "embedding": path}
        return network

    def _classifier(self, network: nn.Module, images: Tensor) -> tuple[str, ...]:
        """Return the path of the last layer, if its width is a number of classes."""
        found = last_linear(network, images)
        if found is None:
            return ()
        path, width = found
        state = torch.random.get_rng_state()
        node = without_pretrained(self.network)
        other = build_network(node, f"{self.where}.network", num_classes=width + 1)
        torch.random.set_rng_state(state)
        again = last_linear(other, images)
        return () if again is None or again[1] == width else (path,)

    def _renew_head(self, network: nn.Module, file: str) -> None:
        """Give a teacher's classifier of another name the rows of its file."""
        if is_trained_here(self.where) or len(self.heads.paths) != 1:
            return
        path = self.heads.paths[0]
        head, rows = network.get_submodule(path), identities_in(file, path)
        if isinstance(head, nn.Linear) and rows and rows != head.out_features:
            owner, _, last = path.rpartition(".")
            new = nn.Linear(head.in_features, rows, bias=head.bias is not None)
            setattr(network.get_submodule(owner), last, new)
