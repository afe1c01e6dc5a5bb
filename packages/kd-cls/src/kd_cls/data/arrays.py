"""Small data sets in arrays: CIFAR, STL-10, scikit-learn's digits, synthetic images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kd_core.config.values import NonNegativeInt, Pixels, PositiveInt
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.image_listing import require_folder
from kd_core.data.sampling import epoch_order
from kd_core.errors import UserError
from kd_core.files.pickles import arrays_only
from torch import Tensor
from torchvision import datasets
from torchvision.datasets import cifar
from torchvision.datasets.utils import check_integrity

from kd_cls.data.augment import Augment, CropFlip, Resize
from kd_cls.data.options import Options, Statistics, with_options
from kd_cls.data.splits import (
    DataSplits,
    Labelled,
    check_labels,
    first_of_each_class,
    make_splits,
    rank_in_class,
    select,
)

_DOWNLOAD = "--cfg-options data.download=True"


@with_options
def cifar10(
    options: Options, root: str = "data", *, image_size: Pixels = 32, download: bool = False
) -> DataSplits:
    """CIFAR-10 in torchvision's layout, resident on the device; see also `Options`.

    Recipe: crop of 32 from 40 pixels and flip. The statistics are those of the set, as in most
    code.

    Args:
        options: See `Options`; its fields are keywords.
        root: Folder that holds `cifar-10-batches-py`.
        image_size: Images are scaled to it on the device where it is not 32.
        download: Whether to download missing files; in one process only.

    Raises:
        UserError: If files are missing or damaged.
    """
    train, test, classes = _cifar(datasets.CIFAR10, root, download)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return array_splits(train, test, classes, options, (mean, std), image_size)


@with_options
def cifar100(
    options: Options, root: str = "data", *, image_size: Pixels = 32, download: bool = False
) -> DataSplits:
    """CIFAR-100 with its 100 fine classes and mdistiller's statistics; otherwise see `cifar10`."""
    train, test, classes = _cifar(datasets.CIFAR100, root, download)
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    return array_splits(train, test, classes, options, (mean, std), image_size)


@with_options
def stl10(
    options: Options, root: str = "data", *, image_size: Pixels = 96, download: bool = False
) -> DataSplits:
    """STL-10's labelled images, 96 pixels, resident on the device; otherwise see `cifar10`.

    Args:
        options: See `Options`; its fields are keywords.
        root: Folder that holds `stl10_binary`.
        image_size: Images are scaled to it on the device where it is not 96.
        download: Whether to download missing files (2.6 GB); in one process only.

    Raises:
        UserError: If files are missing or damaged, or a label is not in [1, 10].
    """
    parts: list[Labelled] = []
    for split, file in (("train", "train_y.bin"), ("test", "test_y.bin")):
        loaded = _torchvision(datasets.STL10, root, download, split=split)
        labels = torch.from_numpy(loaded.labels.astype(np.int64))
        check_labels(labels, 10, str(Path(root, loaded.base_folder, file)))
        parts.append((torch.from_numpy(np.ascontiguousarray(loaded.data)), labels))
    mean, std = (0.4468, 0.4399, 0.4068), (0.2419, 0.2384, 0.2541)
    return array_splits(parts[0], parts[1], loaded.classes, options, (mean, std), image_size)


@with_options
def digits(
    options: Options, *, train_per_class: PositiveInt = 100, split_seed: NonNegativeInt = 0
) -> DataSplits:
    """Scikit-learn's 1797 handwritten digits, 8 pixels, enlarged to 32 by repetition; no download.

    Recipe: crop of 32 from 40 pixels, no flip.

    Args:
        options: See `Options`; its fields are keywords.
        train_per_class: Training images of each digit, at most 173; all others are test images.
        split_seed: Seed of that split; not `data_seed`, so that runs share a test set.
    """
    images, labels = digit_images(4)
    if not 1 <= train_per_class < int(torch.bincount(labels).min()):
        raise UserError(f"digits: train_per_class must be in [1, 173], got {train_per_class}")
    chosen = rank_in_class(labels, epoch_order(len(labels), split_seed, 0)) < train_per_class
    train, test = select((images, labels), chosen), select((images, labels), ~chosen)
    mean, std = (0.305, 0.305, 0.305), (0.376, 0.376, 0.376)
    recipe = [CropFlip(flip=False)]
    return array_splits(train, test, [str(n) for n in range(10)], options, (mean, std), 32, recipe)


@with_options
def synthetic(
    options: Options,
    *,
    image_size: Pixels = 32,
    num_classes: PositiveInt = 10,
    num_train: PositiveInt = 64,
    num_test: PositiveInt = 32,
) -> DataSplits:
    """Coarse patterns with noise, one per class: for dry runs and tests; no augmentation."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randint(256, (num_classes, 3, 4, 4), dtype=torch.uint8, generator=generator)
    place = torch.arange(image_size) * 4 // image_size

    def draw(count: int) -> Labelled:
        labels = torch.arange(count) % num_classes
        shape = (count, 3, image_size, image_size)
        noise = torch.randint(128, shape, dtype=torch.uint8, generator=generator)
        return pattern[labels][:, :, place][..., place] // 2 + noise, labels

    names = [f"class {number}" for number in range(num_classes)]
    half = (0.5, 0.5, 0.5)
    return array_splits(
        draw(num_train), draw(num_test), names, options, (half, half), image_size, []
    )


def digit_images(scale: int) -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits, uint8 [1797, 3, 8 * scale, 8 * scale], and which they are."""
    from sklearn.datasets import load_digits  # slow to import

    loaded = load_digits()
    pixels = torch.from_numpy(loaded.images * (255 / 16)).round().to(torch.uint8)
    large = pixels.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return large[:, None].repeat(1, 3, 1, 1), torch.from_numpy(loaded.target).long()


def array_splits(
    train: Labelled,
    test: Labelled,
    classes: Sequence[str],
    options: Options,
    statistics: tuple[Statistics, Statistics],
    image_size: int,
    recipe: Sequence[Augment] = (CropFlip(),),
) -> DataSplits:
    """Return loaders of arrays, with the recipe where `options` have no augmentation."""
    resize = [] if train[0].shape[-1] == image_size else [Resize(image_size)]

    def loader(images: Tensor, labels: Tensor, *, training: bool) -> DeviceLoader:
        arguments = options.loader_arguments(labels, training, [*resize, *recipe], resize)
        return DeviceLoader(images, labels, **arguments)

    return make_splits(
        first_of_each_class(train, options.limit_per_class),
        test,
        loader,
        options,
        classes=classes,
        mean=statistics[0],
        std=statistics[1],
        image_size=image_size,
    )


def _cifar(dataset: type[Any], root: str, download: bool) -> tuple[Labelled, Labelled, list[str]]:
    parts: list[Labelled] = []
    for split in ("train", "test"):
        loaded = _torchvision(dataset, root, download, train=split == "train")
        labels = torch.tensor(loaded.targets, dtype=torch.int64)
        where = Path(root, loaded.base_folder)
        check_labels(labels, len(loaded.classes), f"{where}, {split} part")
        parts.append((torch.from_numpy(loaded.data).permute(0, 3, 1, 2).contiguous(), labels))
    return parts[0], parts[1], loaded.classes


def _torchvision(dataset: type[Any], root: str, download: bool, **split: Any) -> Any:
    """Load a split of a torchvision data set; messages name the wrong file."""
    folder = Path(root, dataset.base_folder)
    if not download:
        require_folder(folder, f"the unpacked {dataset.filename}; to download it: {_DOWNLOAD}")
    try:
        with arrays_only(cifar):
            return dataset(root, download=download, **split)
    except (RuntimeError, OSError) as error:
        files = dict(dataset.train_list + dataset.test_list)
        wrong = [name for name, md5 in files.items() if not check_integrity(folder / name, md5)]
        raise UserError(
            f"{folder}: torchvision cannot load {dataset.__name__}: {error} Missing or damaged: "
            f"{', '.join(wrong) or 'none of the data files'}; unpack {dataset.filename} again or "
            f"download it: {_DOWNLOAD}"
        ) from error
