"""Your own `torch.utils.data.Dataset`, by its import path."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from kd_core.config.kinds import Kind, makes_one_with
from kd_core.config.values import NonNegative, NonNegativeInt, Pixels
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.image_loader import is_resident
from kd_core.data.samples.dataset_samples import DatasetSamples
from kd_core.data.split_loader import SplitLoader
from kd_core.data.worker_loader import WorkerLoader, read_all
from kd_core.data.workers import WORKER_TIMEOUT
from kd_core.errors import UserError
from torch import Tensor
from torchvision.transforms import v2

from kd_cls.data.dataset_labels import check_classes, class_names, labels_of
from kd_cls.data.file_options import IMAGENET, RESIDENT_BYTES
from kd_cls.data.folders import check_missing
from kd_cls.data.options import Options, with_options
from kd_cls.data.splits import DataSplits, first_of_each_class, make_splits

ITEMS = Kind(
    "a data set of items",
    lambda found: makes_one_with(found, ("__getitem__", "__len__")),
    "a class with `__getitem__` and `__len__`, such as a torch.utils.data.Dataset, or a function "
    "that returns one and says so: `-> Dataset`",
)
ItemsNode = Annotated[Any, ITEMS]
"""A node of a user's data set."""


@with_options
def dataset(
    options: Options,
    train: ItemsNode,
    test: ItemsNode,
    *,
    image_size: Pixels,
    val: ItemsNode | None = None,
    classes: Sequence[str] | None = None,
    resident: bool | Literal["auto"] = "auto",
    workers: NonNegativeInt | None = None,
    worker_timeout: NonNegative = WORKER_TIMEOUT,
    allow_missing_classes: bool = False,
) -> DataSplits:
    """Any `torch.utils.data.Dataset` of images and labels; see `DatasetSamples` for its items.

    A label is a class number, or one number 0 or 1 for each class where an image may have several.
    There is no recipe: `augment` adds augmentations to those of your set. What it draws must come
    from torch's or Python's generator; those are seeded for each image. The statistics are
    ImageNet's.

    Args:
        options: See `Options`; its fields are keywords.
        train: Node of the training set.
        test: Node of the test set.
        image_size: Side of the images in pixels; others are resized by their shorter side, and the
            centre is taken.
        val: Node of a validation set.
        classes: Names of the classes; None takes `train.classes` if there is one, or numbers.
        resident: Whether the images are read once and stay on the device; "auto" does so below
            1 GiB, unless `train` gives other images each time.
        workers: Processes that read items; None takes one for each core, at most eight.
        worker_timeout: Seconds after which a worker without a batch counts as lost; 0 waits
            forever.
        allow_missing_classes: Whether classes may have no image in a part; a warning names them.

    Raises:
        UserError: If an item is not an image with a label, or a label not one of the classes.
    """
    resize = v2.Compose([v2.Resize(image_size), v2.CenterCrop(image_size)])
    nodes = {"train": train, "test": test, **({} if val is None else {"val": val})}
    samples = {
        name: DatasetSamples(items, f"data.{name}", image_size, options.data_seed, resize)
        for name, items in nodes.items()
    }
    parts = {name: (part, labels_of(part)) for name, part in samples.items()}
    names = class_names(classes, train, parts["train"][1])
    for name, (_, labels) in parts.items():
        check_classes(labels, names, f"data.{name}")
        if labels.dim() == 1:
            check_missing(labels, names, f"data.{name}", allow_missing_classes)
    parts["train"] = first_of_each_class(parts["train"], options.limit_per_class)
    count = sum(len(labels) for _, labels in parts.values())
    stays = _stays(samples["train"], resident, count)
    reading: dict[str, Any] = {"workers": workers, "worker_timeout": worker_timeout}

    def loader(part: DatasetSamples, labels: Tensor, *, training: bool) -> SplitLoader:
        arguments = options.loader_arguments(labels, training, [])
        if stays:
            return DeviceLoader(read_all(part, **reading), labels, **arguments)
        return WorkerLoader(part, labels, **reading, **arguments)

    return make_splits(
        parts["train"],
        parts["test"],
        loader,
        options,
        val=parts.get("val"),
        classes=names,
        mean=IMAGENET[0],
        std=IMAGENET[1],
        image_size=image_size,
    )


def _stays(train: DatasetSamples, resident: bool | Literal["auto"], count: int) -> bool:
    """Return whether the images of all parts are read once and stay on the device."""
    drawn = resident is not False and train.is_random()
    if drawn and resident is True:
        raise UserError(
            "resident=True reads each image once, but data.train gives another one each time; "
            "leave data.resident out, or augment on the device (data.augment)"
        )
    return not drawn and is_resident(resident, count, train.size, RESIDENT_BYTES)
