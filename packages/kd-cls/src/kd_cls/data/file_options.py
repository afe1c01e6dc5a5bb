"""Options of sets of image files, and the loaders that read them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from kd_core.config.values import NonNegative, NonNegativeInt, Pixels, check_values
from kd_core.data.decoded import DecodedImages
from kd_core.data.image_files import Transform
from kd_core.data.image_loader import image_loader, is_resident
from kd_core.data.options import shared_arguments
from kd_core.data.split_loader import SplitLoader
from kd_core.data.workers import WORKER_TIMEOUT
from kd_core.errors import UserError
from torch import Tensor
from torchvision.transforms import v2

from kd_cls.data.augment import Augment, CropFlip, Flip
from kd_cls.data.folders import Files
from kd_cls.data.options import Options, Statistics
from kd_cls.data.splits import DataSplits, first_of_each_class, make_splits

RESIDENT_BYTES = 2**30  # resident="auto" keeps smaller sets on the device
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Arguments of every set of your own image files.

    Images are turned as their EXIF orientation says. A small set is decoded once and stays on the
    device; its recipe is a crop from the image padded by an eighth, and flip. A large one is read
    again in each epoch; its recipe is RandomResizedCrop and flip. Images of any size and mode
    become RGB squares, see `kd_core.data.image_files.as_rgb`. The statistics are ImageNet's.

    Args:
        image_size: Side of the images in pixels.
        resize: Shorter side in pixels before the central crop to `image_size`, also that of a
            resident training image; None takes `image_size`.
        resident: Whether the decoded set stays on the device; "auto" does so below 1 GiB.
        transform: Transform of a training image read from disk, from PIL image to `image_size`;
            None takes RandomResizedCrop. A resident set uses only `augment`.
        workers: Processes that read images; None takes one for each core, at most eight.
        worker_timeout: Seconds after which a worker without a batch counts as lost; 0 waits
            forever.
        decoded: Folder, best on a local disk, that keeps the pixels of each image from its first
            use, for later epochs and runs; see `DecodedImages`. A pixel takes three bytes, several
            times as much as in JPEG files. None decodes each time.
        decoded_side: Shorter side in pixels to which larger images are reduced before they are
            stored, which saves disk and time; training crops are then less sharp. None keeps all
            pixels: batches are the same as without `decoded`.
        allow_missing_classes: Whether classes may have no image in a part of the set: one without
            a folder in the test set, an empty folder. A warning then names them.
    """

    image_size: Pixels
    resize: Pixels | None = None
    resident: bool | Literal["auto"] = "auto"
    transform: Transform | None = None
    workers: NonNegativeInt | None = None
    worker_timeout: NonNegative = WORKER_TIMEOUT
    decoded: str | None = None
    decoded_side: Pixels | None = None
    allow_missing_classes: bool = False

    def __post_init__(self) -> None:
        check_values(FileOptions, vars(self), str)

    @property
    def shorter_side(self) -> int:
        """Return the shorter side before the central crop."""
        return self.resize or self.image_size

    def pixels(self, files: np.ndarray) -> DecodedImages | None:
        """Open the store of decoded images, one for all parts of the set, if there is one."""
        side, resize = self.decoded_side, max(self.image_size, self.shorter_side)
        if side is not None and (self.decoded is None or side < resize):
            raise UserError(
                f"decoded_side is {side} pixels, of stored images, which are then resized to "
                f"{resize}; give their folder as `decoded`, and {resize} pixels or more"
            )
        return None if self.decoded is None else DecodedImages(self.decoded, files, side=side)

    @property
    def central(self) -> Transform:
        """Return the transform of evaluation."""
        return v2.Compose([v2.Resize(self.shorter_side), v2.CenterCrop(self.image_size)])


with_file_options = shared_arguments(FileOptions)


def splits_of_files(
    train: Files,
    test: Files,
    classes: Sequence[str],
    options: Options,
    reading: FileOptions,
    *,
    val: Files | None = None,
    statistics: tuple[Statistics, Statistics] = IMAGENET,
    resident_recipe: Sequence[Augment] | None = None,
) -> DataSplits:
    """Return the loaders of a set of image files.

    Args:
        train: Training images.
        test: Test images.
        classes: Names of the classes.
        options: See `Options`.
        reading: See `FileOptions`.
        val: Images of a validation set of its own; None holds out `options.val_fraction`.
        statistics: Mean and standard deviation.
        resident_recipe: Augmentations of a resident set, instead of crop and flip.
    """
    train = first_of_each_class(train, options.limit_per_class)
    parts = [files for files, _ in (train, test, *([val] if val else []))]
    loader = loader_of_files(np.concatenate(parts), options, reading, resident_recipe)
    mean, std = statistics
    return make_splits(
        train,
        test,
        loader,
        options,
        val=val,
        classes=classes,
        mean=mean,
        std=std,
        image_size=reading.image_size,
        shorter_side=reading.shorter_side,
    )


def loader_of_files(
    files: np.ndarray,
    options: Options,
    reading: FileOptions,
    resident_recipe: Sequence[Augment] | None = None,
) -> Callable[..., SplitLoader]:
    """Return what makes the loader of a part: `loader(files, labels, training=...)`.

    It takes `labelled=False` for images without labels.

    Args:
        files: Paths of all parts, bytes [N]; these decide whether the set stays on the device.
        options: See `Options`.
        reading: See `FileOptions`.
        resident_recipe: Augmentations of a resident set, instead of crop and flip.
    """
    size = reading.image_size
    resident = is_resident(reading.resident, len(files), size, RESIDENT_BYTES)
    shared: dict[str, Any] = {
        "image_size": size,
        "workers": reading.workers,
        "worker_timeout": reading.worker_timeout,
        "pixels": reading.pixels(files),
    }

    def loader(
        files: np.ndarray, labels: Tensor, *, training: bool, labelled: bool = True
    ) -> SplitLoader:
        transform, recipe = reading.central, resident_recipe or [CropFlip(padding=size // 8)]
        if not resident:
            recipe = [Flip()]
            if training:
                transform = reading.transform or v2.RandomResizedCrop(size)
        arguments = options.loader_arguments(labels, training, recipe)
        arguments["labelled"] = labelled
        return image_loader(
            files, labels, transform, resident=resident, reading=shared, **arguments
        )

    return loader
