"""Classifier: a network, how its images are normalised, and cross-entropy."""

from collections.abc import Mapping, Sequence

from kd_core.errors import UserError
from kd_core.image_task import ImageTask
from kd_core.task import Batch
from torch import Tensor, nn


class Classifier(ImageTask):
    """Prepare images as the network wants them; give losses in training, logits in evaluation.

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
        super().__init__(
            network, mean=mean, std=std, size=size, label_smoothing=label_smoothing, roles=roles
        )
        self.task_views = task_views

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
        self.count(logits, label)
        return {"ce": self.cross_entropy(logits, label)}
