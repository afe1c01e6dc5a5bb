"""Labels of a user's own data set: class numbers, or a number for each class."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from kd_core.data.samples.dataset_samples import DatasetSamples
from kd_core.data.sampling import borrowed_generators, seed_generators
from kd_core.errors import UserError, located
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from rich.progress import track
from torch import Tensor

_COMPARED = 32  # labels that are read from items where the data set lists all
_FEW = 2000  # items that are read without a progress bar
_LISTS = ("targets", "labels")  # attributes of torchvision's data sets


def labels_of(samples: DatasetSamples) -> Tensor:
    """Return the labels of a data set: int64 [N], or float32 [N, C] of several labels each.

    Those that it lists as `targets` or `labels`, if some items say the same; else every item is
    read for its label.

    Raises:
        UserError: If a label is neither, or they are of two kinds.
    """
    with borrowed_generators():
        seed_generators(0)
        listed = _listed(samples)
        if listed is not None:
            return listed
        numbers = track(
            range(samples.count),
            f"reading the labels of {samples.count:,} images",
            console=err,
            disable=samples.count <= _FEW or distributed.rank() > 0,
            transient=True,
        )
        labels = [_of_item(samples, number) for number in numbers]
    sizes = {len(label) if isinstance(label, list) else 0 for label in labels}
    if len(sizes) > 1:
        raise UserError(
            f"{samples.title}: some labels are class numbers and others lists, or lists of "
            f"{len(sizes)} lengths; wanted one kind"
        )
    return torch.tensor(labels, dtype=torch.float32 if sizes != {0} else torch.int64)


def class_names(given: Sequence[str] | None, dataset: Any, labels: Tensor) -> list[str]:
    """Return the names of the classes: those given, those of the data set, or numbers."""
    if given is not None:
        return list(given)
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) and names:
        return list(names)
    count = labels.shape[1] if labels.dim() == 2 else max(int(labels.max()), 0) + 1
    return [str(number) for number in range(count)]


def check_classes(labels: Tensor, classes: Sequence[str], where: str) -> None:
    """Reject labels that are none of the classes.

    Raises:
        UserError: Names the item.
    """
    if labels.dim() == 2:
        if labels.shape[1] != len(classes):
            raise UserError(
                f"{where}: its labels are lists of {labels.shape[1]}, the training set has "
                f"{len(classes)} classes; wanted one number for each"
            )
        return
    wrong = ((labels < 0) | (labels >= len(classes))).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise UserError(
            f"{where}: item {first} has label {int(labels[first])}, which is not one of the "
            f"{len(classes)} classes 0 to {len(classes) - 1} of the training set ({len(wrong)} "
            "such items); correct it, or name all classes: data.classes=[...]"
        )


def _listed(samples: DatasetSamples) -> Tensor | None:
    """Return the labels that a data set lists, if they are class numbers as its items have them."""
    for name in _LISTS:
        found = getattr(samples.dataset, name, None)
        if not isinstance(found, list | tuple | np.ndarray | Tensor):
            continue
        try:
            labels = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError):
            continue
        if labels.shape != (samples.count,) or labels.is_floating_point():
            continue
        some = range(0, samples.count, max(samples.count // _COMPARED, 1))
        if all(_of_item(samples, number) == int(labels[number]) for number in some):
            return labels.long().cpu()
    return None


def _of_item(samples: DatasetSamples, number: int) -> int | list[float]:
    label = samples.label(number)
    if isinstance(label, Tensor | np.ndarray):
        label = label.tolist()
    if isinstance(label, Integral):
        return int(label)
    if isinstance(label, list | tuple) and label and all(isinstance(x, Real) for x in label):
        return [float(x) for x in label]
    with located(samples.name(number)):
        raise UserError(
            f"its label is {label!r:.60}; wanted a class number, 0 or more, or where an image may "
            "have several classes a number 0 or 1 for each"
        )
