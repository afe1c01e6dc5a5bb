"""Sets of image files: a user's own class folders, ImageNet, Tiny-ImageNet."""

from pathlib import Path

from kd_core.config.values import NonNegative, NonNegativeInt, Pixels
from kd_core.data.image_files import Transform
from kd_core.data.image_listing import require_folder
from kd_core.data.workers import WORKER_TIMEOUT
from kd_core.errors import UserError

from kd_cls.data.augment import Flip, Rotate
from kd_cls.data.file_options import FileOptions, splits_of_files, with_file_options
from kd_cls.data.folders import class_names, scan, scan_annotated
from kd_cls.data.options import Options, with_options
from kd_cls.data.splits import DataSplits

_PARTS = ("train", "test", "val")
_TINY_IMAGENET = ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))


@with_options
@with_file_options
def image_folder(reading: FileOptions, options: Options, root: str) -> DataSplits:
    """Your own images in `root/train/<class>/` and `root/test/<class>/` (or `root/val/<class>/`).

    Hidden files and folders are left out, and all files that are not images, which is said.

    Args:
        reading: See `FileOptions`; its fields are keywords.
        options: See `Options`; its fields are keywords.
        root: Folder of the set.

    Raises:
        UserError: If folders are missing, empty or have different classes, an image cannot be
            decoded, or decoded images do not fit on the disk.
    """
    return _of_folders(*parts_of(root), options, reading)


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
    allow_missing_classes: bool = False,
) -> DataSplits:
    """ImageNet-1k in `root/train/<wnid>/` and `root/val/<wnid>/`, read again in each epoch.

    Recipe: RandomResizedCrop of 224 and flip; evaluation on the central 224 of 256 pixels. The
    arguments are those of `image_folder`; all pixels decoded take some 700 GB, with
    `decoded_side=256` less than half of that.
    """
    layout = f"{root}/train/<wnid>/*.JPEG and {root}/val/<wnid>/*.JPEG, as PyTorch's examples do"
    train, val = (require_folder(Path(root, split), layout) for split in ("train", "val"))
    reading = FileOptions(
        image_size=image_size,
        resize=resize,
        resident=False,
        transform=transform,
        workers=workers,
        worker_timeout=worker_timeout,
        decoded=decoded,
        decoded_side=decoded_side,
        allow_missing_classes=allow_missing_classes,
    )
    return _of_folders(train, val, options, reading)


@with_options
def tiny_imagenet(
    options: Options,
    root: str = "data/tiny-imagenet-200",
    *,
    image_size: Pixels = 64,
    workers: NonNegativeInt | None = None,
    worker_timeout: NonNegative = WORKER_TIMEOUT,
    allow_missing_classes: bool = False,
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
        allow_missing_classes: See `FileOptions`.

    Raises:
        UserError: If files are missing or do not match, or an image cannot be decoded.
    """
    layout = "the unpacked tiny-imagenet-200.zip of cs231n.stanford.edu, with train/ and val/"
    train, val = (require_folder(Path(root, split), layout) for split in ("train", "val"))
    classes = class_names(train)
    official = (val / "images").is_dir() and (val / "val_annotations.txt").is_file()
    allowed = allow_missing_classes
    test = (scan_annotated if official else scan)(val, classes, allow_missing=allowed)
    reading = FileOptions(
        image_size=image_size, resident=True, workers=workers, worker_timeout=worker_timeout
    )
    return splits_of_files(
        scan(train, classes, allow_missing=allowed),
        test,
        classes,
        options,
        reading,
        statistics=_TINY_IMAGENET,
        resident_recipe=[Rotate(20), Flip()],
    )


def parts_of(root: str) -> tuple[Path, Path]:
    """Return the folders of the training and the test part of a set of class folders.

    Raises:
        UserError: If one is missing.
    """
    layout = f"{root}/train/<class>/<images> and {root}/test/<class>/<images>"
    _refuse_a_part(Path(root))
    train = require_folder(Path(root, "train"), layout)
    has_val = Path(root, "val").is_dir() and not Path(root, "test").is_dir()
    return train, require_folder(
        Path(root, "val" if has_val else "test"), f"{layout} (or {root}/val)"
    )


def _refuse_a_part(root: Path) -> None:
    """Reject the folder of one part, such as `train`, where that of the set is wanted."""
    here = root.absolute()
    if here.name not in _PARTS or any(Path(root, part).is_dir() for part in _PARTS):
        return
    if root.is_dir():
        names = class_names(root)
        more = ", ..." if len(names) > 3 else ""
        above = root.parent if root.name else here.parent
        raise UserError(
            f"{root}: has the class folders of one part ({', '.join(names[:3])}{more}); name the "
            f"folder above it, {above}"
        )


def _of_folders(train: Path, test: Path, options: Options, reading: FileOptions) -> DataSplits:
    classes, allowed = class_names(train), reading.allow_missing_classes
    images = [scan(folder, classes, allow_missing=allowed) for folder in (train, test)]
    return splits_of_files(images[0], images[1], classes, options, reading)
