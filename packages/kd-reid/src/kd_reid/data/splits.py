"""The data of a run: the loaders of a set of images of people, names, statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from kd_core.data.image_loader import image_loader, is_resident, packed
from kd_core.data.loader_set import LoaderSet
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError
from kd_core.networks.image_task import height_and_width
from torchvision.transforms import v2

from kd_reid.data.folders import require_files
from kd_reid.data.options import Options
from kd_reid.data.problems import refuse_unusable
from kd_reid.data.records import Record, Splits, relabel, without_cameras
from kd_reid.data.spelling import one_spelling

RESIDENT_BYTES = 2**31  # Market-1501 at 256 x 128, all three parts, is larger: 3.2e9


@dataclass
class People:
    """The identities and cameras of images to search for, or to search in."""

    loader: SplitLoader
    records: list[Record]


@dataclass(kw_only=True)
class TrainingSet(LoaderSet):
    """What is trained on.

    Attributes:
        train: Training batches; `label`, if they have it, counts the identities.
        identities: Names of the training set's identities; none of images without labels.
        image_size: Height and width of the images in pixels.
        mean: Mean of pixels in [0, 1], one for each channel; the embedder subtracts it.
        std: Standard deviation likewise.
    """

    identities: tuple[str, ...]
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """Return the number of identities of the training set."""
        return len(self.identities)


@dataclass(kw_only=True)
class DataSplits(TrainingSet):
    """The data that a config's `data` node builds.

    Attributes:
        query: Images to search for.
        gallery: Images to search in.
    """

    query: People
    gallery: People

    @property
    def loaders(self) -> list[SplitLoader]:
        """Return the loaders of all parts."""
        return [self.train, self.query.loader, self.gallery.loader]


def make_splits(splits: Splits, options: Options, *, published: bool = False) -> DataSplits:
    """Make the loaders of a set.

    Args:
        splits: The images of its parts.
        options: Of all sets.
        published: Whether its files are known to be sound; else they are compared.

    Raises:
        UserError: If images are missing or damaged, the set cannot be evaluated (see
            `refuse_unusable`), or batches cannot be composed as asked.
    """
    splits = one_spelling(splits, "data")
    if options.same_camera:
        splits = without_cameras(splits)
    for part, records in splits._asdict().items():
        if not (records or (part == "query" and splits.gallery)):  # see `why_impossible`
            raise UserError(f"the set has no images for {part}; training needs all three parts")
        require_files(records)
    refuse_unusable(splits, allow_shared=options.allow_shared, look_into_files=not published)
    numbers, identities = relabel(splits.train)
    labels, size = torch.tensor(numbers), height_and_width(options.image_size)
    images = sum(len(part) for part in splits)
    resident = is_resident(options.resident, images, size, RESIDENT_BYTES)
    reading = {
        "image_size": size,
        "workers": options.workers,
        "worker_timeout": options.worker_timeout,
    }

    def loader(records: Sequence[Record], labels: torch.Tensor, **more: Any) -> SplitLoader:
        files = packed(record.path for record in records)
        return image_loader(
            files, labels, v2.Resize(size), resident=resident, reading=reading, **more
        )

    query, gallery = (
        People(
            loader(records, torch.arange(len(records)), **options.loader_arguments()),
            list(records),
        )
        for records in (splits.query, splits.gallery)
    )
    return DataSplits(
        train=loader(splits.train, labels, **options.loader_arguments(labels)),
        query=query,
        gallery=gallery,
        identities=tuple(identities),
        image_size=size,
        mean=tuple(options.mean),
        std=tuple(options.std),
    )
