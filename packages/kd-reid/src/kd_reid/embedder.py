"""Embedder: wraps a network of torchreid with normalisation and losses."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.config.values import Deviations, HeightWidth, Means, NonNegativeInt, Share, checked
from kd_core.errors import UserError
from kd_core.functional import full_precision
from kd_core.networks.image_task import ImageTask
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_reid.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from kd_reid.neck import CLASSIFIER, neck_of, without_neck

ID = "id"  # name of the cross-entropy among the losses


class Embedding(NamedTuple):
    """Output of a network for images."""

    embedding: Tensor  # [N, D], for the search
    logits: tuple[Tensor, ...]  # of each head, [N, identities of the training set]
    features: tuple[Tensor, ...]  # before each head, [N, D]; input of metric losses


class Embedder(ImageTask):
    """Prepares images for the network; returns losses in training, embeddings in evaluation.

    The losses are `id`, the cross-entropy of the identity (the mean over heads, for networks such
    as PCB that have several), and one for each of `metric_losses`.

    Args:
        network: In training mode, images [N, 3, H, W] to (logits, embedding), either a tensor
            or one for each head; any network of torchreid that was built with `loss="triplet"`.
        mean: Of each channel of the images in [0, 1].
        std: Standard deviation of each channel.
        size: Height and width in pixels that images are resized to, or None.
        label_smoothing: Share of the target that is spread over all identities.
        metric_losses: By name; called with embeddings [N, D] and identities int64 [N].
        fixed_base_epochs: Epochs at the start in which only the classifier is trained, and the
            rest is in evaluation mode. Several GPUs need `trainer.find_unused_parameters`.
        roles: Tap paths by role.

    Raises:
        UserError: If mean and std are not three numbers each, or the smoothing not in [0, 1].
    """

    @checked
    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Means = IMAGENET_MEAN,
        std: Deviations = IMAGENET_STD,
        size: HeightWidth | None = None,
        label_smoothing: Share = 0.0,
        metric_losses: Mapping[str, nn.Module] | None = None,
        fixed_base_epochs: NonNegativeInt = 0,
        roles: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        super().__init__(
            network, mean=mean, std=std, size=size, label_smoothing=label_smoothing, roles=roles
        )
        if ID in (metric_losses or {}):
            raise UserError(f"metric_losses: {ID!r} is the cross-entropy's name; choose another")
        self.metric_losses = nn.ModuleDict(metric_losses or {})
        self.fixed_base_epochs = fixed_base_epochs

    def forward(self, batch: Batch) -> dict[str, Tensor] | Embedding:
        """Return `{"id": ..., ...}` while training, else what `embed` returns."""
        found = self.embed(batch["image"])
        if not self.training:
            return found
        label = batch["label"]
        self.count(found.logits[0], label)
        losses = {ID: _mean([self.cross_entropy(logits, label) for logits in found.logits])}
        for name, loss in self.metric_losses.items():
            losses[name] = _mean([_in_full(loss, rows, label) for rows in found.features])
        return losses

    def run_for_taps(self, batch: Batch) -> None:
        """Run the network; labels are not needed."""
        if "label" in batch:
            self(batch)
        else:
            self.embed(batch["image"])

    def embed(self, images: Tensor) -> Embedding:
        """Return embeddings and logits of images, in training and in evaluation mode alike."""
        with _all_outputs(self.network):
            given = self.network(self.prepare(images))
        logits, features = _pair(given, self.network)
        neck = neck_of(self.network)
        if neck is not None and not self.training:
            return Embedding(neck.bn(features[0]), logits, features)
        if len(features) == 1:
            return Embedding(features[0], logits, features)
        return Embedding(torch.cat([F.normalize(rows) for rows in features], 1), logits, features)

    def begin_epoch(self, epoch: int) -> None:
        """Freeze all but the classifier in the first epochs, and unfreeze it afterwards."""
        fixed = epoch < self.fixed_base_epochs
        if not self.fixed_base_epochs:
            return
        for name, module in self.network.named_children():
            if not name.startswith(CLASSIFIER):
                module.train(not fixed)
                module.requires_grad_(not fixed)

    def products(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights of the plain network, and those of the neck for a separate file."""
        neck = neck_of(self.network)
        if neck is None:
            return super().products()
        return {"student": without_neck(self.network), "neck": neck.state_dict()}


@contextmanager
def _all_outputs(network: nn.Module) -> Iterator[None]:
    """Let a network of torchreid return its training outputs in its present mode.

    In evaluation these networks return no logits. The flag of the network itself decides that; the
    flags of its layers are not changed.
    """
    before, network.training = network.training, True
    try:
        yield
    except AssertionError as error:  # of HACNN, which takes one size only
        raise UserError(
            f"{type(network).__name__}: {error}; give its node size=[height, width]"
        ) from error
    finally:
        network.training = before


def _pair(given: Any, network: nn.Module) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the logits and the features of each head."""
    pair = isinstance(given, tuple | list) and len(given) == 2
    logits, features = (_tensors(part) for part in given) if pair else ((), ())
    if not logits or not features:
        came = f"a {type(given).__name__}" if not pair else "something else in them"
        raise UserError(
            f"{type(network).__name__} returned {came}; in training mode it must return logits "
            "[N, identities] and an embedding [N, D] (in torchreid: loss='triplet'; "
            "kd_reid.models.build_model does that)"
        )
    return logits, features


def _tensors(part: Any) -> tuple[Tensor, ...]:
    parts = tuple(part) if isinstance(part, tuple | list) else (part,)
    return parts if all(isinstance(x, Tensor) and x.dim() == 2 for x in parts) else ()


@full_precision
def _in_full(loss: nn.Module, rows: Tensor, label: Tensor) -> Tensor:
    # Losses of other packages multiply embeddings too, and autocast would use bfloat16 for that.
    return cast(Tensor, loss(rows, label))


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()
