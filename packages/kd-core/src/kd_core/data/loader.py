"""Loader: the protocol of a source of batches."""

from collections.abc import Iterator
from typing import Protocol

from kd_core.networks.task import Batch


class Loader(Protocol):
    """Yields the batches of an epoch, each a function of data seed, epoch and place alone."""

    batch_size: int

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from number `start` on."""
