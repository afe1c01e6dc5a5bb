"""Labels [N, C] of images that have any number of classes: checks and subsets."""

from collections.abc import Sequence

import torch
from kd_core.data.sampling import epoch_order
from kd_core.errors import UserError
from torch import Tensor

from kd_cls.data.options import Options


def require_label_sets(
    train: Tensor, test: Tensor, classes: Sequence[str], options: Options
) -> None:
    """Reject parts of a set whose labels are not [N, C], and options for one class an image.

    Raises:
        UserError: Names the part, or the option.
    """
    for labels, where in ((train, "the training set"), (test, "the test set")):
        if labels.dim() != 2:
            raise UserError(f"{where}: wanted labels [N, C] as in the other part of the data")
        check_label_sets(labels, classes, where)
    for name in ("random_labels", "balanced"):
        if getattr(options, name):
            raise UserError(f"data.{name}: needs one class an image, not several; leave it out")


def check_label_sets(labels: Tensor, classes: Sequence[str], where: str) -> None:
    """Reject labels [N, C] that are not 0, 1, or unknown (-1 or NaN), or that name nothing.

    Raises:
        UserError: Names the first wrong one.
    """
    if labels.shape[1] != len(classes):
        raise UserError(
            f"{where}: labels of {labels.shape[1]} classes, but there are {len(classes)} names"
        )
    fits = (labels == 0) | (labels == 1) | (labels == -1) | labels.isnan()
    if not fits.all():
        image, place = (~fits).nonzero()[0].tolist()
        raise UserError(
            f"{where}: label {labels[image, place].item():g} of sample {image}, class "
            f"{classes[place]!r}; wanted 0, 1, or -1 where it is not known"
        )
    if not (labels == 1).any():
        raise UserError(f"{where}: no image has any of the classes; check how labels are written")


def first_with_each_class(labels: Tensor, limit: int) -> Tensor:
    """Choose the images among the first `limit` of one of their classes, bool [N]."""
    present = labels == 1
    return (present & (present.long().cumsum(0) <= limit)).any(1)


def held_out_part(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Choose a random share of all images, at least one, bool [N]; classes are not balanced."""
    count = min(max(round(fraction * len(labels)), 1), len(labels) - 1)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[epoch_order(len(labels), seed, 0)[:count]] = True
    return chosen
