"""Build the loaders of a run from images of people on disk."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from kd_core.data.augment import Augment, Flip
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.folder_loader import FolderLoader, decode
from kd_core.data.options import shared_arguments
from kd_core.data.split_loader import SplitLoader
from kd_core.data.workers import WORKER_TIMEOUT
from kd_core.errors import UserError
from kd_core.networks.image_task import height_and_width
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from kd_reid.data.folders import require_files
from kd_reid.data.records import Record, Splits, relabel
from kd_reid.data.sampler import IdentitySampler
from kd_reid.data.statistics import IMAGENET_MEAN, IMAGENET_STD

RESIDENT_BYTES = 2**31  # Market-1501 at 256 x 128, all three parts, is larger: 3.2e9

Transform = Callable[[Image.Image], Image.Image]


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
    """

    batch_size: int = 64
    instances: int | None = None
    image_size: Sequence[int] = (256, 128)
    augment: Sequence[Augment] | None = None
    data_seed: int = 0
    drop_last: bool = True
    resident: bool | Literal["auto"] = "auto"
    workers: int | None = None
    worker_timeout: float = WORKER_TIMEOUT
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    def __post_init__(self) -> None:
        size = self.image_size
        if not isinstance(size, Sequence) or len(size) != 2 or min(size) < 1:
            raise UserError(f"image_size: wanted height and width, got {self.image_size!r}")
        if self.resident not in (True, False, "auto"):
            raise UserError(f"resident must be True, False or 'auto', got {self.resident!r}")


@dataclass
class People:
    """The identities and cameras of images to search for, or to search in."""

    loader: SplitLoader
    records: list[Record]


@dataclass
class ReidData:
    """The data that a config's `data` node builds.

    Attributes:
        train: Training batches; `label` counts the identities of the training set.
        query: Images to search for.
        gallery: Images to search in.
        identities: Names of the training set's identities.
        image_size: Height and width of the images in pixels.
        mean: Mean of pixels in [0, 1], one for each channel; the embedder subtracts it.
        std: Standard deviation likewise.
    """

    train: SplitLoader
    query: People
    gallery: People
    identities: tuple[str, ...]
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """Return the number of identities of the training set."""
        return len(self.identities)

    @property
    def num_samples(self) -> int:
        """Return the number of training images."""
        return len(self.train.labels)

    @property
    def labels(self) -> Tensor:
        """Return the identities of the training images, int64 [num_samples], on the host."""
        return self.train.labels.cpu()

    @property
    def loaders(self) -> list[SplitLoader]:
        """Return the loaders of all parts."""
        return [self.train, self.query.loader, self.gallery.loader]

    def to(self, device: torch.device) -> None:
        """Let all loaders make their batches on a device."""
        for loader in self.loaders:
            loader.to(device)


with_options = shared_arguments(Options)


def load(splits: Splits, options: Options) -> ReidData:
    """Make the loaders of a set.

    Raises:
        UserError: If images are missing or damaged, or batches cannot be composed as asked.
    """
    for part, records in splits._asdict().items():
        if not records:
            raise UserError(f"the set has no images for {part}; training needs all three parts")
        require_files(records)
    labels, identities = relabel(splits.train)
    size = height_and_width(options.image_size)
    resident = options.resident
    if resident == "auto":
        pixels = 3 * size[0] * size[1] * sum(len(part) for part in splits)
        resident = pixels < RESIDENT_BYTES

    def loader(records: Sequence[Record], labels: Sequence[int], **more: Any) -> SplitLoader:
        files = np.array([os.fsencode(record.path) for record in records])
        arguments = {"batch_size": options.batch_size, "data_seed": options.data_seed, **more}
        reading: Any = {
            "image_size": size,
            "workers": options.workers,
            "worker_timeout": options.worker_timeout,
        }
        resize: Any = v2.Resize(size)
        numbers = torch.tensor(labels)
        if resident:
            return DeviceLoader(decode(files, resize, **reading), numbers, **arguments)
        return FolderLoader(files, numbers, resize, **reading, **arguments)

    parts = [
        People(loader(records, range(len(records))), list(records))
        for records in (splits.query, splits.gallery)
    ]
    return ReidData(
        train=loader(splits.train, labels, **training_arguments(torch.tensor(labels), options)),
        query=parts[0],
        gallery=parts[1],
        identities=tuple(identities),
        image_size=size,
        mean=tuple(options.mean),
        std=tuple(options.std),
    )


def training_arguments(labels: Tensor, options: Options) -> dict[str, Any]:
    """Return the further arguments of the training set's loader."""
    augment = [Flip()] if options.augment is None else options.augment
    sampler = None
    if options.instances is not None:
        sampler = IdentitySampler(
            labels,
            batch_size=options.batch_size,
            instances=options.instances,
            data_seed=options.data_seed,
        )
    return {
        "shuffle": True,
        "augment": augment,
        "drop_last": options.drop_last,
        "sampler": sampler,
    }
