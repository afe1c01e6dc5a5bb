"""An order of training samples in which all classes are equally frequent."""

import torch
from torch import Tensor

from kd_core.data.sampling import epoch_order, numbered
from kd_core.errors import UserError
from kd_core.runtime.seed import mix

_STREAM = 0xBA1A  # makes its random numbers independent of those of a shuffle


class BalancedSampler:
    """An order with equally many places for each class, in epochs of the set's length.

    The places of N samples and C classes differ by one at most, N / C. A class's samples are
    shuffled and taken in turn, again and again, so two of one class differ by one in how often they
    are in an epoch. Everything is a function of (data_seed, epoch).

    Args:
        labels: Class of every sample, int64 [N]; classes without a sample have no place.
        data_seed: Seed of the order.

    Raises:
        UserError: If a sample has not exactly one class.
    """

    def __init__(self, labels: Tensor, data_seed: int = 0) -> None:
        if labels.dim() != 1 or labels.is_floating_point():
            raise UserError("balanced: each sample must have one class; leave data.balanced out")
        self.data_seed, self.samples = data_seed, len(labels)
        by_class = labels.cpu().argsort(stable=True)
        counts = torch.bincount(labels.cpu())
        self._samples = [part for part in by_class.split(counts.tolist()) if len(part)]

    def __len__(self) -> int:
        """Return the number of places, that of the samples."""
        return self.samples

    def order(self, epoch: int) -> Tensor:
        """Return an epoch's samples; see `kd_core.data.split_loader.Sampler`."""
        seed = mix(self.data_seed, epoch, _STREAM)
        each, rest = divmod(self.samples, len(self._samples))
        # Which classes have one more: another choice in each epoch.
        more = epoch_order(len(self._samples), seed, 0) < rest
        places = [
            samples[epoch_order(len(samples), seed, number + 1)].repeat(each // len(samples) + 1)
            for number, samples in enumerate(self._samples)
        ]
        chosen = [part[: each + int(one)] for part, one in zip(places, more.tolist(), strict=True)]
        order = torch.cat(chosen)
        return numbered(order[epoch_order(len(order), self.data_seed, epoch)], self.samples)
