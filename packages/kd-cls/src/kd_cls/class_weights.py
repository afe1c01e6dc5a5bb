"""Weights of classes in the cross-entropy, for sets with rare classes."""

from collections.abc import Sequence
from typing import Literal

import torch
from kd_core.config.values import PositiveValues
from kd_core.errors import UserError
from torch import Tensor

from kd_cls.data import DataSplits

ClassWeights = Literal["balanced"] | PositiveValues
"""One number for each class, or "balanced": in inverse proportion to its training images."""


def class_weights_of(given: str | Sequence[float], data: DataSplits) -> list[float]:
    """Return the weight of each class.

    Balanced, a class of n of the N training images in C classes has N / (C * n), as in
    scikit-learn: the mean over the images is 1. A class without images has 1.

    Args:
        given: See `ClassWeights`.
        data: Gives classes and training labels.

    Raises:
        UserError: If there are more or fewer weights than classes, or no single class an image.
    """
    labels, count = data.labels, data.num_classes
    if labels.dim() != 1:
        raise UserError("class_weights is for one class an image; leave it out")
    if not isinstance(given, str):
        if len(given) != count:
            raise UserError(f"class_weights has {len(given)} numbers, the data {count} classes")
        return list(given)
    images = torch.bincount(labels, minlength=count).double()
    there = images > 0
    weights = torch.where(there, images.sum() / (there.sum() * images.clamp(min=1)), 1.0)
    found: list[float] = weights.tolist()
    return found


def weighted_mean(losses: Tensor, labels: Tensor, shares: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of weighted losses over the weights of their labels, as torch has it.

    Args:
        losses: Of every label, weighted, [N, K].
        labels: Classes of every image, int64 [N, K].
        shares: How much each counts, [N, K].
        weights: Of the classes, [C].
    """
    return (losses * shares).sum() / (weights[labels] * shares).sum()
