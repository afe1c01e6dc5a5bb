"""Deterministic numbers for golden values: sines, the same on every machine."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def signals(
    shape: Sequence[int], frequency: float, phase: float, height: float = 1.0, shift: float = 0.0
) -> Tensor:
    """Return height * sin(frequency * k + phase) + shift, k counting row by row, in float64."""
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return height * torch.sin(frequency * k + phase).reshape(tuple(shape)) + shift


def fill(module: nn.Module, start: int = 1) -> int:
    """Fill the parameters of a module with signals, those of normalisation layers with 1 and 0.

    The i-th parameter, in the order of registration, becomes 0.2 * sin(0.7 k + 0.1 i); parameters
    of normalisation layers count too. The module becomes float64.

    Args:
        module: Any module.
        start: Number of its first parameter.

    Returns:
        The number of the parameter that would follow.
    """
    module.double()
    for layer in module.modules():
        normalises = isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.LayerNorm)
        for name, parameter in layer.named_parameters(recurse=False):
            if normalises:
                parameter.data.fill_(1.0 if name == "weight" else 0.0)
            else:
                parameter.data.copy_(signals(parameter.shape, 0.7, 0.1 * start, 0.2))
            start += 1
    return start
