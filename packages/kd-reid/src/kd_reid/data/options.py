"""What all data sets take, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kd_core.config.values import (
    Deviations,
    HeightWidth,
    Means,
    NonNegative,
    NonNegativeInt,
    PositiveInt,
    check_values,
)
from kd_core.data.augment import Augment, Flip
from kd_core.data.options import shared_arguments
from kd_core.data.workers import WORKER_TIMEOUT
from torch import Tensor

from kd_reid.data.sampler import IdentitySampler
from kd_reid.data.statistics import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments of every data set, besides its own.

    Args:
        batch_size: Images in a global batch, in training and in evaluation.
        instances: Images of each identity in a training batch, for metric losses; None shuffles.
        image_size: Height and width that images are resized to.
        augment: Augmentations of a training batch on the device, in order (`kd_core.data.augment`,
            `kd_reid.data.augment`); None mirrors every other image, an empty list does nothing.
        data_seed: Seed of order and augmentation.
        drop_last: Whether to leave out a last, shorter training batch.
        resident: Whether the decoded images stay on the device; "auto" does so below 2 GiB.
        workers: Processes that read images; None takes one for each core, at most eight.
        worker_timeout: Seconds until a worker without a batch counts as lost; 0 waits forever.
        mean: Mean of the normalisation, of pixels in [0, 1]; by default ImageNet's.
        std: Standard deviation likewise.
        same_camera: Whether images by the query's own camera are matches too, as where there is
            but one camera.
        allow_shared: Whether identities or files may be both trained on and tested with, or files
            be both query and in the gallery.
    """

    batch_size: PositiveInt = 64
    instances: PositiveInt | None = None
    image_size: HeightWidth = (256, 128)
    augment: Sequence[Augment] | None = None
    data_seed: NonNegativeInt = 0
    drop_last: bool = True
    resident: bool | Literal["auto"] = "auto"
    workers: NonNegativeInt | None = None
    worker_timeout: NonNegative = WORKER_TIMEOUT
    mean: Means = IMAGENET_MEAN
    std: Deviations = IMAGENET_STD
    same_camera: bool = False
    allow_shared: bool = False

    def __post_init__(self) -> None:
        check_values(Options, vars(self), str)

    def loader_arguments(self, labels: Tensor | None = None) -> dict[str, Any]:
        """Return the keywords of a loader: with identities int64 [N], of the training set's."""
        arguments = {"batch_size": self.batch_size, "data_seed": self.data_seed}
        if labels is None:
            return arguments
        return {
            **arguments,
            "shuffle": True,
            "augment": [Flip()] if self.augment is None else self.augment,
            "drop_last": self.drop_last,
            "sampler": self._sampler(labels),
        }

    def _sampler(self, labels: Tensor) -> IdentitySampler | None:
        if self.instances is None:
            return None
        return IdentitySampler(
            labels,
            batch_size=self.batch_size,
            instances=self.instances,
            data_seed=self.data_seed,
        )


with_options = shared_arguments(Options)
