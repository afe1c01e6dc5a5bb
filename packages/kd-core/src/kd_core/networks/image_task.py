"""Task on images: prepares them, and measures the accuracy in training."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.networks.image_channels import input_channels, per_channel, with_channels
from kd_core.networks.image_range import check_range
from kd_core.networks.task import Batch, Task
from kd_core.runtime import distributed


class ImageTask(Task):
    """Resizes and normalises images on the device, and counts correct predictions.

    Images arrive as uint8, or as floats in [0, 1], so a student and a teacher that were trained on
    other statistics share one batch; they may also take other channels: grey images are repeated
    for a network of three, and colour is converted for a network of one (see `image_channels`).

    Args:
        network: The plain network.
        mean: Of each channel of the training images, in [0, 1]: three numbers, or one for a network
            that takes grey images. None leaves floats unchanged, and has the channels of the
            network's first convolution.
        std: Standard deviation of each channel, in [0, 1].
        size: Height and width in pixels that images are resized to (bilinear), the side of a
            square, or None.
        label_smoothing: Share of the target that is spread over all classes.
        roles: Tap paths by role.

    Raises:
        UserError: If mean and std are not three numbers each, or one each, or the smoothing is not
            in [0, 1].
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
        self._normalises = mean is not None
        self.label_smoothing = label_smoothing
        # Not persistent: they come from the config, and an old checkpoint must not replace them.
        channels = input_channels(network)
        shift = per_channel((0.0,) * channels if mean is None else mean, "mean")
        scale = per_channel((1.0,) * channels if std is None else std, "std")
        if len(shift) != len(scale):
            raise UserError(f"mean has {len(shift)} numbers and std {len(scale)}; give as many")
        self.register_buffer("mean", shift, persistent=False)
        self.register_buffer("std", scale, persistent=False)
        self.register_buffer("correct", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @property
    def size_advice(self) -> str:
        """What to do where the network cannot take images of their size; "" if not known."""
        return ""

    def prepare(self, images: Tensor) -> Tensor:
        """Return images [N, 1 or 3, H, W] as the network wants them, float [N, its own, H, W].

        Raises:
            UserError: If they are neither uint8 nor floats.
        """
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise UserError(
                f"images are {str(images.dtype).removeprefix('torch.')}; wanted uint8, or floats "
                "in [0, 1]"
            )
        if self.channels_last:  # first: bytes are a quarter of the memory of floats
            images = images.contiguous(memory_format=torch.channels_last)
        ours = images.dtype == torch.uint8  # then convert to floats once, and change them in place
        if ours:
            images = images.float().div_(255)
        if images.shape[1] != len(self.mean):
            images, ours = with_channels(images, len(self.mean)), False
        size = self._height_and_width
        if size is not None and tuple(images.shape[-2:]) != size:
            images, ours = F.interpolate(images, size, mode="bilinear", antialias=True), True
        images = (images.sub_(self.mean) if ours else images - self.mean).div_(self.std)
        return images

    def check_sample(self, batch: Batch) -> None:
        """Reject float images that are not in [0, 1], where they will be normalised.

        Raises:
            UserError: If they are from 0 to 255, or normalised already.
        """
        if (images := batch.get("image")) is not None:
            check_range(images, normalised=self._normalises)

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the cross-entropy of logits [N, C] with smoothed labels int64 [N].

        It is computed in float32 at least.
        """
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(wide, label, label_smoothing=self.label_smoothing)

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
