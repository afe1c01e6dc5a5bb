"""The loaders of a data set: training batches, and those of every other part."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kd_core.data.split_loader import SplitLoader


@dataclass(kw_only=True)
class LoaderSet:
    """Base class of what a config's `data` node builds; a task adds its own parts.

    Attributes:
        train: Training batches.
    """

    train: SplitLoader

    @property
    def loaders(self) -> list[SplitLoader]:
        """Return the loaders of all parts: every attribute that is one."""
        return [value for value in vars(self).values() if isinstance(value, SplitLoader)]

    @property
    def num_samples(self) -> int:
        """Return the number of training samples."""
        return len(self.train.labels)

    @property
    def labels(self) -> Tensor:
        """Return the labels of the training samples, on the host: int64 [N], or floats [N, C].

        None of them, [0], where the samples have no labels.
        """
        return self.train.labels.cpu() if has_labels(self) else torch.zeros(0, dtype=torch.int64)

    def to(self, device: torch.device) -> None:
        """Let all loaders make their batches on a device."""
        for loader in self.loaders:
            loader.to(device)


def has_labels(data: Any) -> bool:
    """Return whether the training samples of what a config's `data` node builds have labels."""
    return bool(getattr(data.train, "labelled", True))
