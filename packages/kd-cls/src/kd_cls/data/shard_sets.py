"""Your own images in WebDataset shards, local or at any URL that the library reads."""

from collections.abc import Sequence
from pathlib import Path

from kd_core.config.values import NonNegative, NonNegativeInt, Pixels, PositiveInt
from kd_core.data.image_files import Transform
from kd_core.data.workers import WORKER_TIMEOUT
from kd_core.files.workdir import cache_folder
from torchvision.transforms import v2

from kd_cls.data.file_options import IMAGENET
from kd_cls.data.folders import check_missing
from kd_cls.data.options import Options, with_options
from kd_cls.data.shards.addresses import shard_addresses
from kd_cls.data.shards.classes import Classes, class_names, class_numbers
from kd_cls.data.shards.parts import Parts, check_apart, warn_of_shared
from kd_cls.data.shards.sample_files import Wanted
from kd_cls.data.shards.table import Rows, read_table
from kd_cls.data.shards.transforms import ResizedCrop
from kd_cls.data.splits import DataSplits, first_of_each_class, make_splits

Shards = str | Sequence[str]


@with_options
def webdataset(
    options: Options,
    train: Shards,
    test: Shards,
    *,
    image_size: Pixels,
    val: Shards | None = None,
    resize: Pixels | None = None,
    transform: Transform | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    num_classes: PositiveInt | None = None,
    classes: str | None = None,
    max_broken: NonNegativeInt = 0,
    streams: PositiveInt = 16,
    index: str | None = None,
    workers: NonNegativeInt | None = None,
    worker_timeout: NonNegative = WORKER_TIMEOUT,
    allow_missing_classes: bool = False,
) -> DataSplits:
    """Your own images in tar archives of WebDataset: `0001.jpg` and `0001.cls`, and so on.

    Recipe: RandomResizedCrop and flip; evaluation on the central crop. Normalised with ImageNet's
    statistics. In an epoch, shards and the samples in each come in random order, see `streams`.
    Images are decoded as files are, and no other file of a sample is read.

    Args:
        options: See `Options`; its fields are keywords.
        train: Training shards: a path or URL, a pattern such as `train-{0000..0146}.tar`, a folder,
            a text file with one of them a line, or a list of these.
        test: Test shards, likewise.
        image_size: Side of the images in pixels.
        val: Shards of a validation set, likewise; None holds out `val_fraction`.
        resize: Shorter side in pixels before the central crop; None takes `image_size`.
        transform: Transform of a training image, from PIL image to `image_size`; None takes
            RandomResizedCrop, computed on tensors.
        image_key: Ending of the image where a sample has several, or a choice: `jpg;png`.
        label_key: Ending of the label's file, or `json:FIELD` (`json:outer.inner`); None takes
            `cls`, or a usual field of `json`.
        num_classes: Number of classes where labels are numbers; None takes those that occur.
        classes: Text file with the name of a class a line, in their order.
        max_broken: Samples of each part that may be broken: without image or label, or not to be
            decoded. Each is printed. In training the next one of its shard takes its place.
        streams: Shards that are read side by side, by all processes and workers together; best a
            multiple of their number. More mix samples better.
        index: Folder for the indices of shards; None takes `shards` in `$KD_CACHE`.
        workers: Processes that read images; None takes one for each core, at most eight.
        worker_timeout: Seconds after which a worker without a batch, or a URL that gives nothing,
            counts as lost; 0 waits forever.
        allow_missing_classes: See `FileOptions`.

    Raises:
        UserError: If shards are missing, damaged or would run a command, too many samples are
            broken, or labels are not classes.
    """
    given = {"train": train, "test": test} | ({} if val is None else {"val": val})
    addresses = {part: shard_addresses(of, f"data.{part}") for part, of in given.items()}
    check_apart(addresses)
    folder = cache_folder() / "shards" if index is None else Path(index)
    wanted = Wanted(image_key, label_key)
    tables = {
        part: read_table(of, wanted, folder, worker_timeout, max_broken, part)
        for part, of in addresses.items()
    }
    named = Classes(num_classes, None if classes is None else class_names(classes))
    named = named.completed(tables["train"])
    labels = class_numbers(tables, named)
    for part, numbers in labels.items():
        where = f"{addresses[part][0]} and the other {part} shards"
        check_missing(numbers, named.names, where, allow_missing_classes)
    warn_of_shared(tables)
    reading = Parts(
        options,
        image_size,
        transform or ResizedCrop(image_size),
        v2.Compose([v2.Resize(resize or image_size), v2.CenterCrop(image_size)]),
        {
            "workers": workers,
            "worker_timeout": worker_timeout,
            "streams": streams,
            "most_broken": max_broken,
        },
    )
    parts = {part: (Rows(table), labels[part]) for part, table in tables.items()}
    return make_splits(
        first_of_each_class(parts["train"], options.limit_per_class),
        parts["test"],
        reading,
        options,
        val=parts.get("val"),
        classes=named.names,
        mean=IMAGENET[0],
        std=IMAGENET[1],
        image_size=image_size,
        shorter_side=resize,
    )
