"""The data of a run: loaders, names, statistics; subsets and hold-out splits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from kd_core.data.loader_set import LoaderSet
from kd_core.data.sampling import epoch_order
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError
from kd_core.runtime.seed import mix, random_below
from torch import Tensor

from kd_cls.data.label_sets import first_with_each_class, held_out_part, require_label_sets
from kd_cls.data.options import Options, Statistics

Labelled = tuple[Any, Tensor]
"""Samples (a tensor, or an array of paths) and their labels: int64 [N], or floats [N, C]."""
_HOLD_OUT = 0x5EED  # makes the split independent of the order of an epoch
_RANDOM_LABELS = 0x1ABE1  # and random labels independent of augmentations


@dataclass(kw_only=True)
class DataSplits(LoaderSet):
    """The data that a config's `data` node builds.

    Attributes:
        train: Training batches; their `index` counts the set without `val`.
        test: Test batches.
        val: Batches of a part held out of the training set, if one was asked for.
        classes: Names of the classes.
        mean: Mean of pixels in [0, 1], one for each channel; the classifier subtracts it.
        std: Standard deviation likewise.
        image_size: Side of the images in pixels.
        shorter_side: That of an image before the central crop in evaluation; None is `image_size`.
    """

    test: SplitLoader
    val: SplitLoader | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    shorter_side: int | None = None

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.classes)


def is_multi_label(data: Any) -> bool:
    """Return whether images have several labels each: what a config's `data` builds has [N, C]."""
    return bool(data.labels.dim() == 2)


def make_splits(
    train: Labelled,
    test: Labelled,
    loader: Callable[..., SplitLoader],
    options: Options,
    *,
    val: Labelled | None = None,
    classes: Sequence[str],
    mean: Statistics,
    std: Statistics,
    image_size: int,
    shorter_side: int | None = None,
) -> DataSplits:
    """Hold out a part of the training set and make the loaders.

    Args:
        train: Training samples and their labels, already limited.
        test: The same of the test set.
        loader: Called as `loader(samples, labels, training=...)`.
        options: Their statistics override `mean` and `std`.
        val: The same of a validation set of its own; None holds out `options.val_fraction`.
        classes: Names of the classes.
        mean: Mean of the data set.
        std: Standard deviation of the data set.
        image_size: Side of the images in pixels.
        shorter_side: See `DataSplits`.
    """
    if train[1].dim() == 2:
        require_label_sets(train[1], test[1], classes, options)
    else:
        require_classes(classes, "this data")
    if val is not None and options.val_fraction:
        raise UserError("the data has a validation set of its own; leave data.val_fraction out")
    seed = mix(options.data_seed, _HOLD_OUT)
    held = held_out(train[1], options.val_fraction, seed, classes, "val_fraction")
    shown = train
    if options.random_labels:
        shown = train[0], random_labels(len(held), len(classes), options.data_seed)
    kept_out = select(train, held) if held.any() else val
    return DataSplits(
        train=loader(*select(shown, ~held), training=True),
        test=loader(*test, training=False),
        val=loader(*kept_out, training=False) if kept_out is not None else None,
        classes=tuple(classes),
        mean=tuple(options.mean or mean),
        std=tuple(options.std or std),
        image_size=image_size,
        shorter_side=shorter_side,
    )


def select(samples: Labelled, chosen: Tensor) -> Labelled:
    """Return the chosen samples with their labels; `chosen` is bool [N]."""
    return samples[0][chosen.numpy()], samples[1][chosen]


def first_of_each_class(samples: Labelled, limit: int | None) -> Labelled:
    """Keep the first `limit` samples of every class; None keeps all."""
    if limit is None:
        return samples
    labels = samples[1]
    if labels.dim() == 2:
        return select(samples, first_with_each_class(labels, limit))
    return select(samples, rank_in_class(labels, torch.arange(len(labels))) < limit)


def random_labels(count: int, num_classes: int, data_seed: int) -> Tensor:
    """Draw a class for every sample, int64 [count], each a function of (data_seed, index)."""
    return random_below(num_classes, torch.arange(count), data_seed, _RANDOM_LABELS)


def rank_in_class(labels: Tensor, visit: Tensor) -> Tensor:
    """Number every sample within its class, in the given order, int64 [N]."""
    by_class = visit[labels[visit].argsort(stable=True)]
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    return rank


def require_classes(classes: Sequence[str], where: str) -> None:
    """Reject a single class: every prediction would be right, an accuracy of 100 %.

    Raises:
        UserError: If there are not two.
    """
    if len(classes) < 2:
        raise UserError(
            f"{where} has the class {classes[0]!r} alone, so every prediction is right; add another"
            " class, or take the images without labels: kd_cls.data.unlabelled"
        )


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """Reject a label that is not a class; the message names its place.

    Raises:
        UserError: If a label is not in [0, num_classes).
    """
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise UserError(
            f"{where}: label {int(labels[first])} of sample {first} is not one of the "
            f"{num_classes} classes 0 to {num_classes - 1} ({len(wrong)} such labels); "
            "is the file damaged?"
        )


def held_out(
    labels: Tensor, fraction: float, seed: int, classes: Sequence[str], option: str
) -> Tensor:
    """Choose the samples to hold out, bool [N]: the same share of each class, at least one.

    Args:
        labels: int64 [N].
        fraction: Share of each class.
        seed: Of the choice.
        classes: Names of the classes; those without a sample are passed over.
        option: What the share is called, for messages.

    Raises:
        UserError: If a class has too few samples to keep one and hold one out.
    """
    if not fraction:
        return torch.zeros(len(labels), dtype=torch.bool)
    if labels.dim() == 2:
        return held_out_part(labels, fraction, seed)
    counts = torch.bincount(labels, minlength=len(classes))
    wanted = (counts * fraction).round().long().clamp(min=1)
    if (short := ((wanted >= counts) & (counts > 0)).nonzero()).numel():
        name, count = classes[int(short[0])], int(counts[short[0]])
        raise UserError(
            f"{option}={fraction}: class {name!r} has {count} training images, too few to "
            f"hold some out and keep some; change {option} or add images"
        )
    return rank_in_class(labels, epoch_order(len(labels), seed, 0)) < wanted[labels]
