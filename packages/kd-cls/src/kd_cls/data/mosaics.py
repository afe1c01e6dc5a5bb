"""A small multi-label set: which digits are in a picture of up to four."""

import torch
from kd_core.config.values import NonNegativeInt, PositiveInt
from torch import Tensor

from kd_cls.data.arrays import array_splits, digit_images
from kd_cls.data.augment import CropFlip
from kd_cls.data.options import Options, with_options
from kd_cls.data.splits import DataSplits, Labelled

_CELLS = ((0, 0), (0, 16), (16, 0), (16, 16))  # upper left corners, in pixels
_EMPTY = 0.3  # share of the cells without a digit


@with_options
def digit_mosaics(
    options: Options,
    *,
    num_train: PositiveInt = 1000,
    num_test: PositiveInt = 500,
    drawing_seed: NonNegativeInt = 0,
) -> DataSplits:
    """Pictures of 32 pixels with up to four of scikit-learn's digits; no download.

    Labels are floats [N, 10]: 1 for every digit in the picture. The digits of test pictures are in
    no training picture. Recipe: crop of 32 from 36 pixels, no flip.

    Args:
        options: See `Options`; its fields are keywords.
        num_train: Training pictures.
        num_test: Test pictures.
        drawing_seed: Which digits are where; not `data_seed`, so that runs share their pictures.
    """
    images, labels = digit_images(2)
    half = len(images) // 2
    train = _drawn((images[:half], labels[:half]), num_train, 2 * drawing_seed)
    test = _drawn((images[half:], labels[half:]), num_test, 2 * drawing_seed + 1)
    mean, std = (0.214, 0.214, 0.214), (0.346, 0.346, 0.346)
    names = [str(digit) for digit in range(10)]
    recipe = [CropFlip(padding=2, flip=False)]
    return array_splits(train, test, names, options, (mean, std), 32, recipe)


def _drawn(digits: Labelled, count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, classes = digits
    pictures = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    labels = torch.zeros(count, 10)
    for top, left in _CELLS:
        chosen = torch.randint(len(images), (count,), generator=generator)
        there = torch.rand(count, generator=generator) >= _EMPTY
        pictures[there, :, top : top + 16, left : left + 16] = images[chosen[there]]
        labels[there, classes[chosen[there]]] = 1
    return pictures, labels
