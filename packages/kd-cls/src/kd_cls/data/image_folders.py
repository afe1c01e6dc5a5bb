"""Sets of image files: a user's own class folders, ImageNet, Tiny-ImageNet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from kd_core.config.values import NonNegative, NonNegativeInt, Pixels
from kd_core.data.decoded import DecodedImages
from kd_core.data.image_files import Transform
from kd_core.data.image_loader import image_loader, is_resident
from kd_core.data.split_loader import SplitLoader
from kd_core.data.workers import WORKER_TIMEOUT
from kd_core.errors import UserError
from torch import Tensor
from torchvision.transforms import v2

from kd_cls.data.augment import Augment, CropFlip, Flip, Rotate
from kd_cls.data.folders import Files, class_names, require, scan, scan_annotated
from kd_cls.data.options import Options, Statistics, with_options
from kd_cls.data.splits import DataSplits, first_of_each_class, make_splits

RESIDENT_BYTES = 2**30  # resident="auto" keeps smaller sets on the device
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TINY_IMAGENET = ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))


@with_options
def image_folder(
    options: Options,
    root: str,
    *,
    image_size: Pixels,
    resize: Pixels | None = None,
    resident: bool | Literal["auto"] = "auto",
    transform: Transform | None = None,
    workers: NonNegativeInt | None = None,
    worker_timeout: NonNegative = WORKER_TIMEOUT,
    decoded: str | None = None,
    decoded_side: Pixels | None = None,
) -> DataSplits:
    """Your own images in `root/train/<class>/` and `root/test/<class>/` (or `root/val/<class>/`).

    A small set is decoded once and stays on the device; its recipe is a crop from the image padded
    by an eighth, and flip. A large one is read again in each epoch; its recipe is RandomResizedCrop
    and flip. Images of any size and mode (grey, palette, CMYK, transparent) become RGB squares. The
    statistics are those of ImageNet.

    Args:
        options: See `Options`; its fields are keywords.
        root: Folder of the set.
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

    Raises:
        UserError: If folders are missing, empty or have different classes, an image cannot be
            decoded, or decoded images do not fit on the disk.
    """
    layout = f"{root}/train/<class>/<images> and {root}/test/<class>/<images>"
    train = require(Path(root, "train"), layout)
    has_val = Path(root, "val").is_dir() and not Path(root, "test").is_dir()
    test = require(Path(root, "val" if has_val else "test"), f"{layout} (or {root}/val)")
    classes = class_names(train)
    stored, processes = (decoded, decoded_side), (workers, worker_timeout)
    reading = _Reading(image_size, resize or image_size, resident, transform, processes, stored)
    return _splits(scan(train, classes), scan(test, classes), classes, options, reading, _IMAGENET)


@with_options
def imagenet(
    options: Options,
    root: str = "data/imagenet",
    *,
    image_size: Pixels = 224,
    resize: Pixels = 256,
    transform: Transform | None = None,
    workers: NonNegativeInt | None = None,
    worker_timeout: NonNegative = WORKER_TIMEOUT,
    decoded: str | None = None,
    decoded_side: Pixels | None = None,
) -> DataSplits:
    """ImageNet-1k in `root/train/<wnid>/` and `root/val/<wnid>/`, read again in each epoch.

    Recipe: RandomResizedCrop of 224 and flip; evaluation on the central 224 of 256 pixels. The
    arguments are those of `image_folder`; all pixels decoded take some 700 GB, with
    `decoded_side=256` less than half of that.
    """
    layout = f"{root}/train/<wnid>/*.JPEG and {root}/val/<wnid>/*.JPEG, as PyTorch's examples do"
    train, val = (require(Path(root, split), layout) for split in ("train", "val"))
    classes = class_names(train)
    stored, processes = (decoded, decoded_side), (workers, worker_timeout)
    reading = _Reading(image_size, resize, False, transform, processes, stored)
    return _splits(scan(train, classes), scan(val, classes), classes, options, reading, _IMAGENET)


@with_options
def tiny_imagenet(
    options: Options,
    root: str = "data/tiny-imagenet-200",
    *,
    image_size: Pixels = 64,
    workers: NonNegativeInt | None = None,
    worker_timeout: NonNegative = WORKER_TIMEOUT,
) -> DataSplits:
    """Tiny-ImageNet, 200 classes, 64 pixels, resident on the device (1.4 GB).

    Recipe: rotation by up to 20 degrees and flip. Its validation part is the test set, in the
    official layout (`val/images`, `val/val_annotations.txt`) or rearranged (`val/<wnid>/`).

    Args:
        options: See `Options`; its fields are keywords.
        root: The unpacked `tiny-imagenet-200`.
        image_size: Images are scaled to it when they are read.
        workers: Processes that read images; None takes one for each core, at most eight.
        worker_timeout: Seconds after which a worker without a batch counts as lost; 0 waits
            forever.

    Raises:
        UserError: If files are missing or do not match, or an image cannot be decoded.
    """
    layout = "the unpacked tiny-imagenet-200.zip of cs231n.stanford.edu, with train/ and val/"
    train, val = (require(Path(root, split), layout) for split in ("train", "val"))
    classes = class_names(train)
    official = (val / "images").is_dir() and (val / "val_annotations.txt").is_file()
    test = (scan_annotated if official else scan)(val, classes)
    recipe: list[Augment] = [Rotate(20), Flip()]
    reading = _Reading(
        image_size, image_size, True, None, (workers, worker_timeout), resident_recipe=recipe
    )
    return _splits(scan(train, classes), test, classes, options, reading, _TINY_IMAGENET)


@dataclass(frozen=True)
class _Reading:
    """Options of reading image files."""

    image_size: int
    resize: int
    resident: bool | str
    transform: Transform | None
    processes: tuple[int | None, float]  # workers and their timeout
    stored: tuple[str | None, int | None] = (None, None)  # folder and side of decoded images
    resident_recipe: Sequence[Augment] | None = None

    def pixels(self, files: np.ndarray) -> DecodedImages | None:
        """Open the store of decoded images, one for all parts of the set, if there is one."""
        (folder, side), resize = self.stored, max(self.image_size, self.resize)
        if side is not None and (folder is None or side < resize):
            raise UserError(
                f"decoded_side is {side} pixels, of stored images, which are then resized to "
                f"{resize}; give their folder as `decoded`, and {resize} pixels or more"
            )
        return None if folder is None else DecodedImages(folder, files, side=side)

    @property
    def central(self) -> Transform:
        """Return the transform of evaluation."""
        return v2.Compose([v2.Resize(self.resize), v2.CenterCrop(self.image_size)])


def _splits(
    train: Files,
    test: Files,
    classes: Sequence[str],
    options: Options,
    reading: _Reading,
    statistics: tuple[Statistics, Statistics],
) -> DataSplits:
    train = first_of_each_class(train, options.limit_per_class)
    size, images = reading.image_size, len(train[1]) + len(test[1])
    resident = is_resident(reading.resident, images, size, RESIDENT_BYTES)
    workers, timeout = reading.processes
    shared: dict[str, Any] = {
        "image_size": size,
        "workers": workers,
        "worker_timeout": timeout,
        "pixels": reading.pixels(np.concatenate([train[0], test[0]])),
    }

    def loader(files: np.ndarray, labels: Tensor, *, training: bool) -> SplitLoader:
        transform, recipe = (
            reading.central,
            reading.resident_recipe or [CropFlip(padding=size // 8)],
        )
        if not resident:
            recipe = [Flip()]
            if training:
                transform = reading.transform or v2.RandomResizedCrop(size)
        arguments = options.loader_arguments(training, recipe)
        return image_loader(
            files, labels, transform, resident=resident, reading=shared, **arguments
        )

    mean, std = statistics
    return make_splits(
        train, test, loader, options, classes=classes, mean=mean, std=std, image_size=size
    )
