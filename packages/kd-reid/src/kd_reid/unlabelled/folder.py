"""A folder of crops without identities, such as a detector's, and a labelled set to search."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from kd_core.config.values import Fraction, HeightWidth, SeveralInt
from kd_core.data.image_files import size_of_pixels
from kd_core.data.image_loader import image_loader, is_resident, packed
from kd_core.data.split_loader import SplitLoader
from kd_core.data.unlabelled.found_images import images_below, without_broken
from kd_core.data.unlabelled.parts import chosen, divided, note_parts, note_shared
from kd_core.errors import UserError, located
from kd_core.networks.image_task import height_and_width
from kd_core.runtime import distributed
from torchvision.transforms import v2

from kd_reid.data.options import Options, with_options
from kd_reid.data.splits import RESIDENT_BYTES, TrainingSet
from kd_reid.measuring.targets import Searching, Target, open_target, read_searching

_READERS = 8  # threads: they wait for the disk
_SMALL = 8  # a crop is small below this part of the images' height or width


@dataclass(kw_only=True)
class CropSplits(TrainingSet):
    """The loaders of crops without identities; their batches have no `label`.

    Attributes:
        test: Crops that are held out.
        searched: A labelled set for rank-1 and mAP, if there is one.
    """

    test: SplitLoader
    searched: Target | None = None

    @property
    def loaders(self) -> list[SplitLoader]:
        """Return the loaders of all parts."""
        found = self.searched
        more = [] if found is None else [found.query.loader, found.gallery.loader]
        return [self.train, self.test, *more]


@with_options
def crops(
    options: Options,
    root: str,
    *,
    held_out: Fraction = 0.05,
    limit: SeveralInt | None = None,
    min_size: HeightWidth | None = None,
    skip_broken: bool = False,
    evaluate_on: str | None = None,
) -> CropSplits:
    """Crops of people without identities, below a folder at any depth.

    Names of folders and files are not read. Hidden files, files that are not images and further
    links to one image are left out, which is said. The student ends in its embedding.

    Args:
        options: See `Options`; its fields are keywords. Those on cameras are for `evaluate_on`.
        root: Folder of the crops.
        held_out: Share of the crops, three at least, that is drawn from `data_seed` for evaluation
            and never trained on.
        limit: Crops to use; they are drawn, the same for every seed. None uses all.
        min_size: Height and width; crops that are smaller in one of them are left out.
        skip_broken: Decode each crop once before the run, and leave out those that cannot be. If
            not, such a crop ends the run with its name.
        evaluate_on: Labelled images, of query and gallery, for rank-1 and mAP: a folder, a CSV
            file, `NAME:ROOT` of a public set, or a config whose `data` is meant. Nothing is trained
            on them.

    Raises:
        UserError: If there are too few crops, one cannot be read, or an option has no effect.
    """
    _refuse_useless(options, evaluate_on)
    searching = None if evaluate_on is None else _searching(evaluate_on, options)
    size = height_and_width(options.image_size)
    found = _large_enough(chosen(images_below(root), limit), min_size, size, root)
    if skip_broken:
        found = without_broken(found, root)
    train, kept_out = divided(packed(found), held_out, options.data_seed)
    records = [] if searching is None else [*searching.query.records, *searching.gallery.records]
    if records:
        note_shared(found, {"query and gallery": [record.path for record in records]})
    resident = is_resident(options.resident, len(found) + len(records), size, RESIDENT_BYTES)
    reading = {
        "image_size": size,
        "workers": options.workers,
        "worker_timeout": options.worker_timeout,
    }

    def loader(files: np.ndarray, *, training: bool) -> SplitLoader:
        numbers = torch.zeros(len(files), dtype=torch.int64)
        arguments = options.loader_arguments(numbers if training else None)
        arguments |= {"resident": resident, "reading": reading, "labelled": False}
        return image_loader(files, numbers, v2.Resize(size), **arguments)

    note_parts(root, train, kept_out)
    shown = replace(options, resident=resident)
    return CropSplits(
        train=loader(train, training=True),
        test=loader(kept_out, training=False),
        searched=None if searching is None else open_target(searching, size, shown),
        identities=(),
        image_size=size,
        mean=tuple(options.mean),
        std=tuple(options.std),
    )


def _refuse_useless(options: Options, evaluate_on: str | None) -> None:
    """Reject options that need identities, or that have no effect."""
    if options.instances is not None:
        raise UserError("instances: needs identities, which these crops do not have; leave it out")
    if options.allow_shared:
        raise UserError("allow_shared: no identities are trained on; leave it out")
    if options.same_camera and evaluate_on is None:
        raise UserError("same_camera: is for labelled images; set evaluate_on, or leave it out")


def _searching(source: str, options: Options) -> Searching:
    with located("evaluate_on"):
        return read_searching(source, same_camera=options.same_camera)


def _large_enough(
    files: list[str], least: Sequence[int] | None, size: tuple[int, int], root: str
) -> list[str]:
    """Leave small crops out, or print how many there are.

    Args:
        files: Their paths.
        least: Smallest height and width, or None.
        size: Height and width that crops are resized to.
        root: Their folder.

    Raises:
        UserError: If all are too small.
    """
    height, width = height_and_width(least) if least else [-(-side // _SMALL) for side in size]
    with ThreadPoolExecutor(_READERS) as readers:
        sizes = list(readers.map(_size, files))
    fits = [found is None or (found[0] >= height and found[1] >= width) for found in sizes]
    small = [file for file, one in zip(files, fits, strict=True) if not one]
    if not small:
        return files
    shown = f"{len(small):,} of {len(files):,} crops are smaller than {height} x {width} pixels"
    if least is None:
        distributed.print_note(
            f"{root}: {shown}, a part of {_SMALL} of the images' sides, such as {small[0]}; "
            f"data.min_size=[{height},{width}] leaves them out"
        )
        return files
    if len(small) == len(files):
        raise UserError(f"{root}: all {len(files):,} crops are smaller than {height} x {width}")
    distributed.print_note(f"{root}: {shown}, such as {small[0]}; they are left out")
    return [file for file, one in zip(files, fits, strict=True) if one]


def _size(file: str) -> tuple[int, int] | None:
    """Return height and width; None of a broken file, which is reported where it is decoded."""
    try:
        return size_of_pixels(file)
    except UserError:
        return None
