"""Parts of the contract's rules: a criterion with fixed random numbers, and the checks."""

from typing import Any

import torch
from torch import Tensor

from kd_core.criteria.criterion import Borrowed, Criterion
from kd_core.functional import tensors
from kd_core.testing.samples import Inputs, make


def make_seeded(cls: type[Criterion], overrides: dict[str, Any], seed: int = 0) -> Criterion:
    """Construct a criterion whose initialisation is the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the GPU's is not restored
        return make(cls, **overrides)


def moved(criterion: Criterion, device: str) -> Criterion:
    """Move a criterion to a device, and what it has borrowed, which else goes with its network."""
    for module in criterion.modules():
        for value in vars(module).values():
            for borrowed in value if isinstance(value, tuple) else (value,):
                if isinstance(borrowed, Borrowed):
                    borrowed.module.to(device)
    return criterion.to(device)


def value_of(criterion: Criterion, inputs: Inputs) -> Tensor:
    """Return the loss; random numbers in it are the same every time."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        value: Tensor = criterion(*inputs)
    return value


def require_finite(loss: Tensor, leaves: Any) -> None:
    """Require a finite loss, and a finite gradient of every leaf that gets one."""
    require(is_finite(loss), f"a loss of {loss.item()}")
    loss.backward()
    for leaf in tensors(leaves):
        require(leaf.grad is None or is_finite(leaf.grad), "a gradient that is not finite")


def is_finite(tensor: Tensor) -> bool:
    """Return whether no element is infinite or NaN."""
    return bool(tensor.isfinite().all())


def require(condition: bool, message: str) -> None:
    """Raise an AssertionError unless the condition holds."""
    if not condition:
        raise AssertionError(message)
