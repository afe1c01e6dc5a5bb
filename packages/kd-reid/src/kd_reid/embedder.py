"""Embedder: wraps a network of torchreid with normalisation and losses."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from kd_core.config.values import Deviations, HeightWidth, Means, NonNegativeInt, Share, checked
from kd_core.errors import UserError
from kd_core.functional import full_precision
from kd_core.networks.hidden_pass import hidden_from_taps
from kd_core.networks.image_task import ImageTask
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_reid.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from kd_reid.heads import (
    FixedBase,
    Heads,
    are_left_out,
    is_of_torchreid,
    named_heads,
    require_heads,
    watched,
)
from kd_reid.neck import neck_of, without_neck
from kd_reid.outputs import Embedding, all_outputs, in_evaluation, joined, training_pair

ID = "id"  # name of the cross-entropy among the losses
NO_LOSS = (
    "gives no logits of identities, so it has no loss of its own; in training mode it must return "
    "logits [N, identities] and an embedding [N, D], or learn from a teacher alone: "
    "distiller.task_weight=0"
)
"""What is wrong with a student without a classifier."""


class Embedder(ImageTask):
    """Prepares images for the network; returns losses in training, embeddings in evaluation.

    The losses are `id`, the cross-entropy of the identity (the mean over heads, for networks such
    as PCB that have several), and one for each of `metric_losses`.

    Args:
        network: In training mode, images [N, 3, H, W] to (logits, embedding), either a tensor
            or one for each head; any network of torchreid that was built with `loss="triplet"`. In
            evaluation what it gives then, the embedding [N, D] or both, is what is searched by.
        mean: Of each channel of the images in [0, 1].
        std: Standard deviation of each channel.
        size: Height and width in pixels that images are resized to, or None.
        label_smoothing: Share of the target that is spread over all identities.
        metric_losses: By name; called with embeddings [N, D] and identities int64 [N].
        fixed_base_epochs: Epochs at the start in which only the classifier is trained, and the
            rest is in evaluation mode. Several GPUs need `trainer.find_unused_parameters`.
        roles: Tap paths by role.
        heads: Where its classifiers are; None takes those of torchreid's name. Where they were
            left out, there are no logits.

    Raises:
        UserError: If mean and std are not three numbers each, the smoothing not in [0, 1], or the
            classifier not known whose base is fixed.
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
        heads: Heads | None = None,
    ) -> None:
        super().__init__(
            network, mean=mean, std=std, size=size, label_smoothing=label_smoothing, roles=roles
        )
        if ID in (metric_losses or {}):
            raise UserError(f"metric_losses: {ID!r} is the cross-entropy's name; choose another")
        self.metric_losses = nn.ModuleDict(metric_losses or {})
        self.fixed_base_epochs = fixed_base_epochs
        named = named_heads(network)
        self.heads = Heads(named, named) if heads is None else heads
        if fixed_base_epochs:
            require_heads(network, self.heads.new, f"fixed_base_epochs={fixed_base_epochs}")
        self._base = FixedBase(self.heads.new)
        paths = self.heads.paths
        self.left_out: tuple[str, ...] = paths if are_left_out(network, paths) else ()

    def forward(self, batch: Batch) -> dict[str, Tensor] | Embedding:
        """Return `{"id": ..., ...}` while training, else what images are searched by."""
        if not self.training:
            return self.search(self.prepare(batch["image"]))
        found = self.embed(batch["image"])
        if not found.logits:
            raise UserError(f"student: {type(self.network).__name__} {NO_LOSS}")
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
        return self._embed(self.prepare(images))

    def _embed(self, prepared: Tensor) -> Embedding:
        found = self._all(prepared)
        if self.training or self._searches_as_trained:
            return found
        with hidden_from_taps():
            own = in_evaluation(self.network(prepared), self.network)
        return found._replace(embedding=own.embedding)

    def search(self, prepared: Tensor) -> Embedding:
        """Return what the network itself gives in evaluation for images of `prepare`."""
        # What a tap of the classifier waits for may come with the training outputs alone.
        if self._searches_as_trained or watched(self.network, self.heads.paths):
            return self._embed(prepared)
        return in_evaluation(self.network(prepared), self.network)

    @property
    def _searches_as_trained(self) -> bool:
        """Whether the training outputs have the embedding that is searched by.

        In torchreid's networks the flag of the network decides only what is returned.
        """
        return is_of_torchreid(self.network) or neck_of(self.network) is not None

    def _all(self, prepared: Tensor) -> Embedding:
        """Return the training outputs in the present mode; the search is behind a neck."""
        behind: list[Tensor] = []
        neck = None if self.training else neck_of(self.network)
        hook = None
        if neck is not None:
            hook = neck.bn.register_forward_hook(lambda m, args, out: behind.append(out))
        try:
            with all_outputs(self.network):
                given = self.network(prepared)
        finally:
            if hook is not None:
                hook.remove()
        found = training_pair(given, self.network)
        if self.left_out:
            found = found._replace(logits=())
        embedding = behind[0] if behind else joined(found.features)
        return Embedding(embedding, *found)

    def without_role(self, role: str) -> str:
        """Return what to do where a tap asks for logits that were left out."""
        if role != "logits" or not self.left_out:
            return ""
        return "it ends in its embedding: learn its @embedding, as rkd.py does"

    def begin_epoch(self, epoch: int) -> None:
        """Freeze all but the classifier in the first epochs, and unfreeze it afterwards."""
        if epoch < self.fixed_base_epochs:
            self._base.freeze(self.network)
        else:
            self._base.release(self.network)

    def products(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights of the plain network, and those of the neck for a separate file."""
        neck = neck_of(self.network)
        if neck is None:
            return super().products()
        return {"student": without_neck(self.network), "neck": neck.state_dict()}


@full_precision
def _in_full(loss: nn.Module, rows: Tensor, label: Tensor) -> Tensor:
    # Losses of other packages multiply embeddings too, and autocast would use bfloat16 for that.
    return cast(Tensor, loss(rows, label))


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()
