"""Options of all data sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kd_core.config.values import (
    Deviations,
    Means,
    NonNegativeInt,
    Part,
    PositiveInt,
    check_values,
)
from kd_core.data.balanced import BalancedSampler
from kd_core.data.mix import check_mixing
from kd_core.data.options import shared_arguments
from kd_core.errors import UserError
from torch import Tensor

from kd_cls.data.augment import Augment

Statistics = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments of every data set, besides its own.

    Args:
        batch_size: Samples in a global batch, in training and in evaluation.
        data_seed: Seed of order, augmentation and hold-out split.
        val_fraction: Share of every class that is held out of the training set as `val`.
        limit_per_class: Training images of each class to use, the first ones; None uses all.
        random_labels: Whether every training image gets a random class, drawn once from
            `data_seed`; the labels of `val` and of the test set stay true. A control: nothing
            useful can be learned, so the accuracy is 1 / classes on average; a method with more has
            seen the true labels. From Zhang et al., "Understanding deep learning requires
            rethinking generalization", ICLR 2017, arXiv:1611.03530.
        copies: How often every training image is in an epoch; each copy gets its own augmentation.
        balanced: Whether every class has equally many places in an epoch, which keeps its length:
            images of rare classes are repeated, some of frequent ones left out; see
            `BalancedSampler`. `student.class_weights` weighs the loss instead.
        augment: Augmentations of a training batch on the device, in order (`kd_cls.data.augment`);
            None takes those of the data set's usual recipe, an empty list none.
        drop_last: Whether to leave out a last, shorter training batch. One of a single image is
            left out in any case where training fails on it, because of a BatchNorm.
        mean: Mean of the normalisation, of pixels in [0, 1]; None takes that of the data set.
        std: Standard deviation likewise.
    """

    batch_size: PositiveInt = 64
    data_seed: NonNegativeInt = 0
    val_fraction: Part = 0.0
    limit_per_class: PositiveInt | None = None
    random_labels: bool = False
    copies: PositiveInt = 1
    balanced: bool = False
    augment: Sequence[Augment] | None = None
    drop_last: bool = False
    mean: Means | None = None
    std: Deviations | None = None

    def __post_init__(self) -> None:
        check_values(Options, vars(self), str)
        check_mixing(self.augment or ())
        if self.balanced and self.copies > 1:
            raise UserError("balanced repeats images already; set data.copies=1, or leave it out")

    def loader_arguments(
        self,
        labels: Tensor,
        training: bool,
        recipe: Sequence[Augment],
        evaluation: Sequence[Augment] = (),
    ) -> dict[str, Any]:
        """Return the keywords of a loader: for training the recipe, unless `augment` is given.

        Args:
            labels: Of the loader's images, int64 [N].
            training: Whether it gives training batches.
            recipe: Augmentations in training.
            evaluation: Augmentations in evaluation.
        """
        augment = recipe if self.augment is None else self.augment
        balanced = training and self.balanced
        return {
            "batch_size": self.batch_size,
            "data_seed": self.data_seed,
            "shuffle": training,
            "drop_last": self.drop_last and training,
            "copies": self.copies if training else 1,
            "augment": augment if training else evaluation,
            "sampler": BalancedSampler(labels, self.data_seed) if balanced else None,
        }


with_options = shared_arguments(Options)
