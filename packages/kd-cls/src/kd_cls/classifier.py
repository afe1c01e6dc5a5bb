"""Classifier: wraps a network with normalisation and cross-entropy."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.config.values import (
    Deviations,
    HeightWidth,
    Means,
    Pixels,
    PositiveInt,
    Share,
    checked,
)
from kd_core.networks.image_task import ImageTask
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_cls.libraries.outputs import logits_in
from kd_cls.libraries.sizes import size_advice


class Classifier(ImageTask):
    """Prepares images for the network; returns losses in training, logits in evaluation.

    Where images are mixed (`kd_core.data.mix`), the loss is the weighted sum of the cross-entropies
    with the classes of their parts; the class with the largest weight counts as correct.

    Args:
        network: From images [N, 3, H, W] to logits [N, C].
        mean: Of each channel of the training images, in [0, 1]; None leaves floats unchanged.
        std: Standard deviation of each channel, in [0, 1].
        size: Height and width in pixels that images are resized to (bilinear), or None.
        label_smoothing: Share of the target that is spread over all classes.
        task_views: In batches with several views of every image, the cross-entropy takes so many
            of the first views; None for all.
        views_apart: With such batches, run the network on one view after the other in training,
            so that BatchNorm sees each alone; otherwise all views are one batch.
        output: Name or number of the logits, where the network returns a tuple, dict or
            dataclass.
        roles: Tap paths by role; see `kd_cls.roles`.

    Raises:
        UserError: If mean and std are not three numbers each, or the smoothing not in [0, 1].
    """

    @checked
    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Means | None = None,
        std: Deviations | None = None,
        size: Pixels | HeightWidth | None = None,
        label_smoothing: Share = 0.0,
        task_views: PositiveInt | None = None,
        views_apart: bool = False,
        output: str | int | None = None,
        roles: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        if output is not None:
            roles = {"logits": f"output[{output}]", **(roles or {})}
        super().__init__(
            network, mean=mean, std=std, size=size, label_smoothing=label_smoothing, roles=roles
        )
        self.task_views = task_views
        self.views_apart = views_apart
        self.output = output

    def forward(self, batch: Batch) -> dict[str, Tensor] | Tensor:
        """Return `{"ce": ...}` while training, else logits [N, C]."""
        images, passes = self.prepare(batch["image"]), self.passes(batch)
        parts = [self._logits(part) for part in images.tensor_split(passes)]
        logits = torch.cat(parts) if passes > 1 else parts[0]
        if not self.training:
            return logits
        label = batch["label"]
        if "mixed_labels" in batch:
            labels, weights = batch["mixed_labels"], batch["mixed_weights"]
            self.count(logits, labels.gather(1, weights.argmax(1, keepdim=True)).squeeze(1))
            return {"ce": self.mixed_cross_entropy(logits, labels, weights)}
        if self.task_views is not None:
            rows = len(label) * self.task_views // batch.get("num_views", 1)
            logits, label = logits[:rows], label[:rows]
        self.count(logits, label)
        return {"ce": self.cross_entropy(logits, label)}

    @property
    def size_advice(self) -> str:
        """What to do where the network cannot take images of their size; "" if not known."""
        return size_advice(self.network)

    def passes(self, batch: Batch) -> int:
        """Return the number of views where each has its own pass, else 1."""
        return int(batch.get("num_views", 1)) if self.views_apart and self.training else 1

    def _logits(self, images: Tensor) -> Tensor:
        return logits_in(self.network(images), self.output, self.network)

    def mixed_cross_entropy(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sum of smoothed cross-entropies, mean over the batch, in float32.

        Args:
            logits: [N, C].
            labels: Classes of every image, int64 [N, K].
            weights: How much each counts, [N, K].
        """
        smoothing = self.label_smoothing
        losses = [
            F.cross_entropy(logits.float(), label, reduction="none", label_smoothing=smoothing)
            for label in labels.unbind(1)
        ]
        return (torch.stack(losses, 1) * weights).sum(1).mean()


class LinearProbe(Classifier):
    """A classifier with a frozen network, whose head is trained on the features.

    The network stays in eval mode, so that BatchNorm keeps its statistics and dropout is off. The
    builder decides which parameters require a gradient; if only the head does, no backward pass
    goes through the network.
    """

    def train(self, mode: bool = True) -> Self:
        """Set the task to training mode, never the network."""
        super().train(mode)
        self.network.eval()
        return self
