"""Your own images without labels: a folder, flat or nested, or a list of files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from kd_core.config.values import Fraction, NamesOrFile, PositiveInt, SeveralInt
from kd_core.data.image_loader import packed
from kd_core.data.split_loader import SplitLoader
from kd_core.data.unlabelled.found_images import images_below, without_broken
from kd_core.data.unlabelled.parts import (
    as_text,
    chosen,
    divided,
    note_parts,
    note_shared,
)
from kd_core.errors import UserError, located
from kd_core.files.weight_facts import class_names
from torch import Tensor

from kd_cls.data import folders
from kd_cls.data.file_options import IMAGENET, FileOptions, loader_of_files, with_file_options
from kd_cls.data.folders import Files, scan
from kd_cls.data.image_folders import parts_of
from kd_cls.data.listed_images import images_listed
from kd_cls.data.options import Options, with_options
from kd_cls.data.splits import DataSplits, first_of_each_class, require_classes

_NEED_LABELS = ("val_fraction", "random_labels", "balanced")
_OF_EVALUATION = ("shots", "limit_per_class", "allow_missing_classes")


@dataclass(kw_only=True)
class UnlabelledSplits(DataSplits):
    """The loaders of images without labels; their batches have no `label`.

    Attributes:
        test: Images that are held out, without labels.
        classes: Those of the teachers' logits that a student learns; none for a student that ends
            in features.
        known: Labelled images for probes of features, as they are shown in evaluation, if given.
        queries: Labelled images that these are tried on.
        known_classes: Names of the probes' classes.
        shots: Images of each class for further probes with few labels.
    """

    known: SplitLoader | None = None
    queries: SplitLoader | None = None
    known_classes: tuple[str, ...] = ()
    shots: tuple[int, ...] = ()


@with_options
@with_file_options
def unlabelled(
    reading: FileOptions,
    options: Options,
    root: str | None = None,
    *,
    csv: str | None = None,
    path_column: str | None = None,
    outside_root: bool = False,
    held_out: Fraction = 0.05,
    limit: SeveralInt | None = None,
    skip_broken: bool = False,
    classes: SeveralInt | NamesOrFile | None = None,
    evaluate_on: str | None = None,
    shots: Sequence[PositiveInt] = (),
) -> UnlabelledSplits:
    """Your own images without labels, below a folder at any depth, or in a list.

    Names of folders are not read. Hidden files, files that are not images and further links to one
    image are left out, which is said. The student ends in features, unless `classes` says that it
    learns a teacher's logits. Of the options those on classes are for `evaluate_on`.

    Args:
        reading: See `FileOptions`; its fields are keywords.
        options: See `Options`; its fields are keywords.
        root: Folder of the images; of a list, the folder that its relative paths start from.
        csv: List of the images: a path in each line, or a table with a column of paths.
        path_column: Name of that column, if it is none of the usual names.
        outside_root: Whether relative paths in a list may leave `root`.
        held_out: Share of the images, three at least, that is drawn from `data_seed` for evaluation
            and never trained on.
        limit: Images to use; they are drawn, the same for every seed. None uses all.
        skip_broken: Decode each image once before the run, and leave out those that cannot be. If
            not, such an image ends the run with its name.
        classes: Classes of the teachers' logits: names, a text file with a name in each line, or
            their number. None for a student that ends in features.
        evaluate_on: Labelled images for k-NN and a linear probe, in `train/<class>/` and
            `test/<class>/` (or `val/<class>/`) of this folder. Nothing is trained on their labels.
        shots: Numbers of labelled images of each class for further probes, such as [1, 10].

    Raises:
        UserError: If there are too few images, one cannot be read, or an option has no effect.
    """
    _refuse_useless(options, reading, evaluate_on, shots, csv, path_column, outside_root)
    names = _names(classes)
    found = _found(root, csv, path_column, outside_root)
    found = chosen(found, limit)
    if skip_broken:
        found = without_broken(found, str(csv or root))
    train, kept_out = divided(packed(found), held_out, options.data_seed)
    known, queries, known_classes = _labelled(evaluate_on, options, reading)
    _check_shots(shots, known[1])
    labelled = {"training": as_text(known[0]), "test": as_text(queries[0])}
    note_shared(found, labelled if len(queries[0]) else {})
    parts = [train, kept_out, *(files for files, _ in (known, queries) if len(files))]
    loader = loader_of_files(np.concatenate(parts), options, reading)

    def plain(files: np.ndarray, *, training: bool) -> SplitLoader:
        return loader(files, torch.zeros(len(files)).long(), training=training, labelled=False)

    note_parts(str(csv or root), train, kept_out)
    probed = len(known_classes) > 0
    return UnlabelledSplits(
        train=plain(train, training=True),
        test=plain(kept_out, training=False),
        val=None,
        classes=names,
        mean=tuple(options.mean or IMAGENET[0]),
        std=tuple(options.std or IMAGENET[1]),
        image_size=reading.image_size,
        shorter_side=reading.shorter_side,
        known=loader(*known, training=False) if probed else None,
        queries=loader(*queries, training=False) if probed else None,
        known_classes=known_classes,
        shots=tuple(shots),
    )


def _refuse_useless(
    options: Options,
    reading: FileOptions,
    evaluate_on: str | None,
    shots: Sequence[int],
    csv: str | None,
    path_column: str | None,
    outside_root: bool,
) -> None:
    """Reject options that need labels, or that have no effect."""
    for name in _NEED_LABELS:
        if getattr(options, name):
            way = "set data.held_out" if name == "val_fraction" else "leave it out"
            raise UserError(f"{name}: needs labels, which these images do not have; {way}")
    values = (shots, options.limit_per_class, reading.allow_missing_classes)
    for name, value in zip(_OF_EVALUATION, values, strict=True):
        if value and evaluate_on is None:
            raise UserError(f"{name}: is for labelled images; set evaluate_on, or leave it out")
    for name, given in (("path_column", path_column is not None), ("outside_root", outside_root)):
        if given and csv is None:
            raise UserError(f"{name}: is for a list of images; set csv, or leave it out")


def _names(classes: int | Sequence[str] | str | None) -> tuple[str, ...]:
    if isinstance(classes, int):
        return tuple(map(str, range(classes)))
    names = tuple(class_names(classes) or ())
    if classes is not None:
        require_classes(names, "classes")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"classes: {twice[0]!r} is repeated; give each class a name of its own")
    return names


def _found(root: str | None, csv: str | None, column: str | None, outside: bool) -> list[str]:
    if csv is not None:
        return images_listed(csv, root, column, outside=outside)
    if not root:  # "" would be all that is below the current folder
        raise UserError("no images: set root to their folder, or csv to a list of them")
    return images_below(root)


def _labelled(
    root: str | None, options: Options, reading: FileOptions
) -> tuple[Files, Files, tuple[str, ...]]:
    """Return the labelled images of `evaluate_on`, both parts, and their classes."""
    if root is None:
        none: Files = packed([]), torch.zeros(0, dtype=torch.int64)
        return none, none, ()
    with located("evaluate_on"):
        parts = parts_of(root)
        classes = folders.class_names(parts[0])
        require_classes(classes, root)
        allowed = reading.allow_missing_classes
        known, queries = (scan(part, classes, allow_missing=allowed) for part in parts)
        for part, (_, labels) in zip(parts, (known, queries), strict=True):
            # A class that is missing may be allowed, but not all of them but one.
            require_classes([classes[n] for n in labels.unique()], str(part))
    return first_of_each_class(known, options.limit_per_class), queries, tuple(classes)


def _check_shots(shots: Sequence[int], known: Tensor) -> None:
    """Reject numbers of images that repeat, or that no class has: all labels is `linear`."""
    if not shots:
        return
    if twice := [count for count in shots if shots.count(count) > 1]:
        raise UserError(f"shots: {twice[0]} is repeated; name each number once")
    if max(shots) > (most := int(known.bincount().max())):
        raise UserError(
            f"shots: {max(shots)}, but no class of evaluate_on has more than {most} training "
            "images; name smaller numbers. All of them are measured as `linear`"
        )
