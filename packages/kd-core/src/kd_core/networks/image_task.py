"""Task on images: prepares them, and measures the accuracy in training."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.networks.task import Task
from kd_core.runtime import distributed


class ImageTask(Task):
    """Resizes and normalises images on the device, and counts correct predictions.

    Images arrive as uint8, or as floats in [0, 1], so a student and a teacher that were trained on
    other statistics share one batch.

    Args:
        network: The plain network.
        mean: Of each channel of the training images, in [0, 1]; None leaves floats unchanged.
        std: Standard deviation of each channel, in [0, 1].
        size: Height and width in pixels that images are resized to (bilinear), the side of a
            square, or None.
        label_smoothing: Share of the target that is spread over all classes.
        roles: Tap paths by role.

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
        size: int | Sequence[int] | None = None,
        label_smoothing: float = 0.0,
        roles: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        super().__init__(network, roles=roles)
        if (mean is None) != (std is None):
            raise UserError("mean and std belong together; give both or neither")
        if not 0 <= label_smoothing <= 1:
            raise UserError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
        self.size = size
        self._height_and_width = None if size is None else height_and_width(size)
        self.label_smoothing = label_smoothing
        # Not persistent: they come from the config, and an old checkpoint must not replace them.
        shift, scale = (
            _per_channel(mean or (0, 0, 0), "mean"),
            _per_channel(std or (1, 1, 1), "std"),
        )
        self.register_buffer("mean", shift, persistent=False)
        self.register_buffer("std", scale, persistent=False)
        self.register_buffer("correct", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @property
    def size_advice(self) -> str:
        """What to do where the network cannot take images of their size; "" if not known."""
        return ""

    def prepare(self, images: Tensor) -> Tensor:
        """Return images as the network wants them, float [N, 3, H, W]."""
        if self.channels_last:  # first: bytes are a quarter of the memory of floats
            images = images.contiguous(memory_format=torch.channels_last)
        ours = images.dtype == torch.uint8  # then convert to floats once, and change them in place
        if ours:
            images = images.float().div_(255)
        size = self._height_and_width
        if size is not None and tuple(images.shape[-2:]) != size:
            images, ours = F.interpolate(images, size, mode="bilinear", antialias=True), True
        images = (images.sub_(self.mean) if ours else images - self.mean).div_(self.std)
        return images

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the cross-entropy of logits [N, C] with smoothed labels int64 [N], in float32."""
        return F.cross_entropy(logits.float(), label, label_smoothing=self.label_smoothing)

    def count(self, logits: Tensor, label: Tensor) -> None:
        """Count how many of the logits [N, C] are correct."""
        self.correct += (logits.detach().argmax(dim=1) == label).sum()
        self.seen += len(label)

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


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Return a size in pixels as height and width; one number is the side of a square.

    Raises:
        UserError: If it is neither a number nor two.
    """
    if isinstance(size, int):
        return size, size
    if not isinstance(size, Sequence) or len(size) != 2:
        raise UserError(f"size needs height and width in pixels, such as (256, 128); got {size!r}")
    return int(size[0]), int(size[1])
