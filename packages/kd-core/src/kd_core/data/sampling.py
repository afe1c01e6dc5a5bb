"""Random numbers as functions of the sample, never of a running generator."""

import copy
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kd_core.errors import UserError
from kd_core.runtime.seed import mix, random_bits


class Sampling:
    """The random numbers of an epoch's samples; `sampling[part]` has those of one batch.

    Each call returns the next number of every sample, a function of (data_seed, epoch, index,
    number of the call). The bits of a whole epoch are computed once on the host and then kept on
    the device: a batch costs a slice, and nothing is read back.

    Args:
        index: Sample indices in the order of the epoch, int64 [N], on the host.
        data_seed: Seed of all data choices.
        epoch: Number of the epoch.
        device: Where the numbers are wanted.
        samples: Number of samples in the set, if they may be repeated; see `Sampler`.
    """

    def __init__(
        self,
        index: Tensor,
        data_seed: int,
        epoch: int,
        device: torch.device | str = "cpu",
        *,
        samples: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.count = 0
        self._index, self._counters = index, (data_seed, epoch)
        self._samples = math.inf if samples is None else samples
        self._part: slice | Tensor = slice(None)
        self._epoch_bits: list[Tensor] = []  # one [N] for each call, shared by all batches

    def __getitem__(self, part: slice) -> Self:
        batch = copy.copy(self)
        batch._part, batch.count = part, 0
        return batch

    def below(self, limit: int) -> Tensor:
        """Draw integers in [0, limit), int64 [n] on the device."""
        return self._bits() * limit >> 31

    def uniform(self, low: float, high: float) -> Tensor:
        """Draw numbers in [low, high), float32 [n] on the device."""
        return low + (high - low) * 2.0**-24 * (self._bits() >> 7).float()

    def seeds(self) -> list[int]:
        """Draw one seed for every sample, on the host: for transforms with their own generator."""
        counters, self.count = (*self._counters, self.count), self.count + 1
        return random_bits(self._index[self._part], *counters).tolist()

    def of_copies(self) -> tuple[Tensor, Self]:
        """Return the places, in the batch, of repeated samples, and their random numbers.

        The places are int64 on the host; there are none if no sample is repeated.
        """
        places = (self._index[self._part] >= self._samples).nonzero().flatten()
        copies = copy.copy(self)
        copies._part = torch.arange(len(self._index))[self._part][places]
        return places, copies

    def _bits(self) -> Tensor:
        while len(self._epoch_bits) <= self.count:
            bits = random_bits(self._index, *self._counters, len(self._epoch_bits))
            self._epoch_bits.append(bits.to(self.device, non_blocking=True))
        self.count += 1
        return self._epoch_bits[self.count - 1][self._part]


class SymmetricBeta:
    """Turn a number uniform in [0, 1] into one of Beta(alpha, alpha), by its inverse distribution.

    Rejection sampling would read from the device at each try. Up to one half, the inverse is
    tabulated as a smooth function of x ** alpha; the rest is its mirror image. The error is below
    1e-6.

    Args:
        alpha: Positive.

    Raises:
        UserError: If alpha is not positive.
    """

    def __init__(self, alpha: float) -> None:
        if not alpha > 0:
            raise UserError(f"Beta({alpha}, {alpha}): the parameter must be positive")
        self.alpha = alpha
        power = np.linspace(0, 0.5**alpha, 2**14 + 1)  # of x: its density is then bounded
        density = (1 - power ** (1 / alpha)) ** (alpha - 1)
        reached = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
        steps = np.linspace(0, reached[-1], 2**12 + 1)
        self._table = torch.from_numpy(np.interp(steps, reached, power)).float()

    def __call__(self, uniform: Tensor) -> Tensor:
        """Return float32 in [0, 1] for float32 in [0, 1], of any shape."""
        if self._table.device != uniform.device:
            self._table = self._table.to(uniform.device)
        last = len(self._table) - 1
        place = 2 * last * torch.minimum(uniform, 1 - uniform)
        below = place.long().clamp(max=last - 1)
        power = torch.lerp(self._table.take(below), self._table.take(below + 1), place - below)
        x = power ** (1 / self.alpha)
        return torch.where(uniform < 0.5, x, 1 - x)


def epoch_order(count: int, data_seed: int, epoch: int) -> Tensor:
    """Return the shuffled sample indices of an epoch, int64 [count]."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(mix(data_seed, epoch)))


def numbered(order: Tensor, samples: int) -> Tensor:
    """Write the k-th repetition of a sample as index + k * samples, int64 [places].

    Args:
        order: Sample at each place, int64 [places].
        samples: Number of samples in the set.
    """
    by_sample = order.argsort(stable=True)
    ordered = order[by_sample]
    places = torch.arange(len(order))
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = torch.where(new, places, 0).cummax(0).values
    times = torch.empty_like(order)
    times[by_sample] = places - first
    return order + times * samples


@contextmanager
def borrowed_generators() -> Iterator[None]:
    """Restore the host generators of torch and Python at exit; the block may reseed them."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)


def seed_generators(seed: int) -> None:
    """Seed the host generators that torchvision's transforms draw from."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPU as well
    random.seed(seed)
