"""Seeds, saved generator states, and randomness as a pure function of counters."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices), for initialisation and dropout."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of torch's generators, in types that `weights_only` loading accepts."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def mix(*counters: int) -> int:
    """Hash integers into one 31-bit seed; the same on every machine, unlike `hash`."""
    return int(_hashed(counters))


def random_bits(index: Tensor, *counters: int | Tensor) -> Tensor:
    """Return 31 random bits for every index, as a function of (counters, index) alone.

    No generator is used, so any sample of any epoch can be computed again. Exact resume, caches
    and shared teachers depend on it.

    Args:
        index: Sample indices, int64 [N], on any device.
        counters: Whatever else the draw depends on: data seed, epoch, number of the draw; int64
            [K, 1] for K draws at once.

    Returns:
        int64 [N], or [K, N], with values in [0, 2^31).
    """
    return _scramble(_scramble(index & _MASK) ^ _hashed(counters)) & 0x7FFFFFFF


def random_below(limit: int, index: Tensor, *counters: int) -> Tensor:
    """Draw integers in [0, limit) for every index, int64 [N]; see `random_bits`."""
    return random_bits(index, *counters) * limit >> 31


def random_uniform(index: Tensor, *counters: int) -> Tensor:
    """Draw numbers in [0, 1) for every index, float32 [N]; see `random_bits`."""
    return (random_bits(index, *counters) >> 7).float() * 2.0**-24


def _hashed(counters: Sequence[Any]) -> Any:
    """Hash ints, or int64 tensors, into 31 bits."""
    value: Any = 0x9E3779B9
    for counter in counters:
        for word in (counter & _MASK, (counter >> 32) & _MASK):
            value = _scramble(value ^ word)
    return value & 0x7FFFFFFF


def _scramble(value: Any) -> Any:
    """Mix 32 bits held in an int or an int64 tensor; constants found by hash-prospector."""
    value = ((value ^ (value >> 16)) * 0x21F0AAAD) & _MASK
    value = ((value ^ (value >> 15)) * 0x735A2D97) & _MASK
    return value ^ (value >> 15)
