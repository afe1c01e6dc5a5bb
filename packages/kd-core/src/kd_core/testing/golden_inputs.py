"""Inputs that anybody can draw again by their name, and numbers that stand for whole tensors."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_core.errors import UserError


def normal(key: str, *shape: int, scale: float = 1.0) -> Tensor:
    """Return standard normal numbers times `scale`, float64; the key seeds them."""
    return _rounded(_generator(key).standard_normal(shape) * scale)


def uniform(key: str, *shape: int, scale: float = 1.0) -> Tensor:
    """Return uniform numbers in [0, scale), float64; the key seeds them."""
    return _rounded(_generator(key).random(shape) * scale)


def integers(key: str, *shape: int, high: int) -> Tensor:
    """Return whole numbers in [0, high), int64; the key seeds them."""
    return torch.from_numpy(_generator(key).integers(0, high, shape))


def coins(key: str, *shape: int, share: float) -> Tensor:
    """Return 1.0 with probability `share`, else 0.0, float64; the key seeds them."""
    return torch.from_numpy((_generator(key).random(shape) < share).astype(np.float64))


def orthogonal(key: str, rows: int, columns: int) -> Tensor:
    """Return a matrix whose rows, or columns if there are fewer, are orthonormal, float64."""
    drawn = normal(key, rows, columns)
    q, r = torch.linalg.qr(drawn if rows >= columns else drawn.T)
    q = q * r.diagonal().sign()
    return q if rows >= columns else q.T


def probe(values: Tensor) -> float:
    """Return one number that depends on every element: the sum of a_i sin(i + 1)."""
    flat = values.detach().double().flatten()
    return float(flat @ _sines(flat.numel()))


@torch.no_grad()
def fill_with_sines(module: nn.Module) -> nn.Module:
    """Set every parameter to 0.05 sin(i + 1), those of norms to 1 and 0; in float64, training."""
    module.double()  # first: float32 would round the numbers
    for parameter in module.parameters():
        parameter.copy_(0.05 * _sines(parameter.numel()).view(parameter.shape))
    for part in module.modules():
        if isinstance(part, _BatchNorm | nn.LayerNorm | nn.GroupNorm) and part.weight is not None:
            part.weight.fill_(1.0)
            if part.bias is not None:
                part.bias.zero_()
    return module.train()


def value_and_gradients(
    loss: Callable[..., Tensor], student: Sequence[Tensor]
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Return a loss of the student's tensors, and (l2 norm, probe) of its gradient to each.

    Args:
        loss: Takes the tensors one by one. A vector of losses is summed for the gradient.
        student: Floats.

    Raises:
        UserError: If one of them gets no gradient.
    """
    inputs = [tensor.clone().requires_grad_() for tensor in student]
    value = loss(*inputs)
    value.sum().backward()
    gradients = []
    for place, tensor in enumerate(inputs):
        if tensor.grad is None:
            raise UserError(f"the loss does not depend on the student's tensor {place}")
        gradients.append((float(tensor.grad.norm()), probe(tensor.grad)))
    return value.detach(), gradients


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def _rounded(values: np.ndarray) -> Tensor:
    """Return float64 numbers that float32 holds exactly."""
    return torch.from_numpy(values.astype(np.float32).astype(np.float64))


def _sines(count: int) -> Tensor:
    return torch.arange(1, count + 1, dtype=torch.float64).sin()
