"""Classifier: a network, how its images are normalised, and cross-entropy."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core import distributed
from kd_core.errors import UserError
from kd_core.task import Batch, Task
from torch import Tensor, nn


class Classifier(Task):
    """Prepare images as the network wants them; give losses in training, logits in evaluation.

    Images arrive as uint8, or as floats in [0, 1]; they are resized and normalised here, on the
    device, so a student and a teacher that were trained on other statistics share one batch.

    Args:
        network: From images [N, 3, H, W] to logits [N, C].
        mean: Of each channel of the training images, in [0, 1]; None leaves floats as they are.
        std: Standard deviation of each channel, in [0, 1].
        size: Height and width in pixels that images are resized to (bilinear), or None.
        label_smoothing: Share of the target that is spread over all classes.
        task_views: Of batches with several views of every image, how many of the first ones the
            cross-entropy sees; None for all.
        roles: Tap paths by role; see `kd_cls.models.roles`.

    Raises:
        UserError: If mean and std are not three numbers each, or the smoothing not in [0, 1].
    """

    mean: Tensor
    std: Tensor
    correct: Tensor
    seen: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
        label_smoothing: float = 0.0,
        task_views: int | None = None,
        roles: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        super().__init__(network, roles=roles)
        if (mean is None) != (std is None):
            raise UserError("mean and std go together; give both or neither")
        if not 0 <= label_smoothing <= 1:
            raise UserError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
        self.size = size
        self.label_smoothing = label_smoothing
        self.task_views = task_views
        # Not persistent: they belong to the config, and old checkpoints must not bring others.
        shift, scale = (
            _per_channel(mean or (0, 0, 0), "mean"),
            _per_channel(std or (1, 1, 1), "std"),
        )
        self.register_buffer("mean", shift, persistent=False)
        self.register_buffer("std", scale, persistent=False)
        self.register_buffer("correct", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> dict[str, Tensor] | Tensor:
        """Return `{"ce": ...}` while training, else logits [N, C]."""
        logits = self.network(self.prepare(batch["image"]))
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"{type(self.network).__name__} returned {came}; a classifier needs logits "
                "[N, C] (switch auxiliary outputs off, or wrap the network)"
            )
        if not self.training:
            return logits
        label = batch["label"]
        if self.task_views is not None:
            rows = len(label) * self.task_views // batch.get("num_views", 1)
            logits, label = logits[:rows], label[:rows]
        self.correct += (logits.detach().argmax(dim=1) == label).sum()
        self.seen += len(label)
        loss = F.cross_entropy(logits.float(), label, label_smoothing=self.label_smoothing)
        return {"ce": loss}

    def prepare(self, images: Tensor) -> Tensor:
        """Return images as the network wants them, float [N, 3, H, W]."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        images = (images - self.mean) / self.std
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def training_metrics(self) -> dict[str, float]:
        """Return the top-1 accuracy on the training images seen since the last call, in percent."""
        correct, seen = distributed.reduce_sum(torch.stack([self.correct, self.seen])).tolist()
        self.correct.zero_()
        self.seen.zero_()
        return {"train_top1": round(100 * correct / seen, 4)} if seen else {}


def _per_channel(values: Sequence[float], name: str) -> Tensor:
    """Return the values as a tensor [3, 1, 1]."""
    if not isinstance(values, Sequence) or len(values) != 3:
        raise UserError(f"{name} needs three numbers, one a channel; got {values!r}")
    return torch.tensor(values, dtype=torch.float32).view(3, 1, 1)
