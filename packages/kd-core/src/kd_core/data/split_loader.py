"""SplitLoader: base class of the loaders of one split of a data set."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from kd_core.config.values import NonNegativeInt, PositiveInt, checked
from kd_core.data.augment import Augment
from kd_core.data.sampling import epoch_order
from kd_core.errors import UserError
from kd_core.files.fingerprint import fingerprint
from kd_core.networks.task import Batch


class Sampler(Protocol):
    """An epoch's order other than a shuffle: samples may be repeated, or left out."""

    def __len__(self) -> int:
        """Return the number of places in every epoch."""

    def order(self, epoch: int) -> Tensor:
        """Return the sample at each place, int64 [places].

        The k-th repetition of a sample is written as index + k * samples, so that it gets its own
        augmentation.
        """


class SplitLoader:
    """Batches of a data set; every choice is a function of (data_seed, epoch, index).

    Batches hold `image` uint8 [n, 3, H, W], `label` [n] or [n, C] where there are labels, `index`
    int64 [n] (the position in this loader's set), and what the augmentations add.

    Args:
        labels: Class of every sample, int64 [N], or floats [N, C] of 0 and 1; of samples without
            labels any int64 [N].
        batch_size: Samples in a global batch, whatever the number of processes.
        shuffle: Whether each epoch has its own order.
        augment: Augmentations run on the device, in order.
        data_seed: Seed of order and augmentation.
        drop_last: Whether to leave out a last, shorter batch.
        sampler: Gives the order instead of a shuffle.
        copies: How often every sample is in an epoch, unless a sampler decides; each copy gets its
            own augmentation.
        labelled: Whether the labels are known; otherwise batches have no `label`.
    """

    @checked
    def __init__(
        self,
        labels: Tensor,
        *,
        batch_size: PositiveInt,
        shuffle: bool = False,
        augment: Sequence[Augment] = (),
        data_seed: NonNegativeInt = 0,
        drop_last: bool = False,
        sampler: Sampler | None = None,
        copies: PositiveInt = 1,
        labelled: bool = True,
    ) -> None:
        self.labels, self.sampler, self.copies = labels, sampler, copies
        self.labelled = labelled
        count = self._count()
        if drop_last and count < batch_size:
            raise UserError(
                f"batch_size {batch_size}: no batch can be made of {count} samples with drop_last; "
                "choose a smaller number"
            )
        self.batch_size, self.shuffle = batch_size, shuffle
        self.augment, self.data_seed, self.drop_last = tuple(augment), data_seed, drop_last
        self.device = torch.device("cpu")
        self._rank, self._world_size, self._least = 0, 1, 1

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(range(0, self._end(), self.batch_size))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Self:
        """Make batches on this device from now on; returns the loader itself."""
        self.device = torch.device(device)
        self.labels = self.labels.to(self.device)
        return self

    def shard(self, rank: int, world_size: int) -> Self:
        """Return a loader of this rank's contiguous part of each global batch.

        The parts of all ranks, joined in their order, are the batch of one process: nothing is
        padded, so a short batch gives unequal parts. A last training batch with fewer samples than
        ranks is left out; in evaluation some parts are then empty.

        Raises:
            UserError: If every training batch has fewer samples than ranks.
        """
        if self.shuffle and self.batch_size < world_size:
            raise UserError(
                f"batch_size is {self.batch_size}, of all {world_size} processes together; choose "
                f"{world_size} or more, or start fewer processes"
            )
        part = copy.copy(self)
        part._rank, part._world_size = rank, world_size
        return part

    def without_single(self) -> Self:
        """Return a loader that leaves out a last batch with one sample a process.

        Other batches stay as they are, so each epoch's shuffle leaves out another sample.
        """
        part = copy.copy(self)
        part._least = 2
        return part

    def fingerprint(self) -> str:
        """Return a hash that differs for other samples; here it is of the labels."""
        return fingerprint(self.labels)

    def smallest(self, world_size: int = 1) -> int:
        """Return the samples of the smallest batch that a process sees in an epoch."""
        last = self._end() % self.batch_size or self.batch_size
        return min(last, self.batch_size) // world_size

    def sample(self, count: int) -> Batch:
        """Return the first batch of the first epoch, with another batch size."""
        part = self.shard(0, 1)  # a copy, so that its worker processes end with it
        part.batch_size = count
        return next(part.epoch(0))

    def _batch(self, image: Tensor, index: Tensor) -> Batch:
        """Return a batch of images, by their place in the set."""
        batch: Batch = {"image": image, "label": self.labels[index], "index": index}
        if not self.labelled:
            del batch["label"]
        return batch

    def order(self, epoch: int) -> Tensor:
        """Return the sample at each place of an epoch, numbered as `Sampler` does."""
        if self.sampler is not None:
            return self.sampler.order(epoch)
        if self.shuffle:
            return epoch_order(self._count(), self.data_seed, epoch)
        return torch.arange(self._count())

    def places(self, start: int) -> list[slice]:
        """Return this rank's places of each batch in the epoch's order."""
        parts: list[slice] = []
        for first in range(start * self.batch_size, self._end(), self.batch_size):
            size = min(self.batch_size, self._end() - first)
            low, high = (size * rank // self._world_size for rank in (self._rank, self._rank + 1))
            parts.append(slice(first + low, first + high))
        return parts

    def _count(self) -> int:
        return len(self.labels) * self.copies if self.sampler is None else len(self.sampler)

    def _end(self) -> int:
        count, rest = self._count(), self._count() % self.batch_size
        # In training every process needs an image: an empty batch has no loss and no statistics.
        training = self.shuffle or self._least > 1
        too_few = training and rest < self._least * self._world_size
        return count - rest if self.drop_last or too_few else count


def data_fingerprint(data: Any) -> str:
    """Return a hash that differs for other data: other labels, images or file names.

    Args:
        data: The object that a config's `data` builds; the hash is of its `loaders` if it lists
            them, else only of `train`.
    """
    loaders = getattr(data, "loaders", (data.train,))
    parts = [loader.fingerprint() for loader in loaders if isinstance(loader, SplitLoader)]
    return fingerprint(str(data.num_classes), *parts)
