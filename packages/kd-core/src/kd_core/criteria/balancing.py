"""Bring the features of several teachers to one scale: running standardisation, and PHI-S."""

from math import isqrt

import torch
from torch import Tensor, nn

from kd_core.config.values import Positive, PositiveInt, checked
from kd_core.errors import UserError
from kd_core.runtime.distributed import print_note, reduce_sum

_noted: set[int] = set()


class RunningStandardizer(nn.Module):
    """Standardise the channels of features by running means and deviations, as UNIC does.

    A call standardises with the statistics of the calls before, then moves them: the first call
    returns what it is given. They are those of the features in all processes together.

    Args:
        width: Number of channels.
        eps: Added to the deviations, when they are taken and when they are used.
    """

    mean: Tensor
    std: Tensor

    @checked
    def __init__(self, width: PositiveInt, *, eps: Positive = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def forward(self, features: Tensor, momentum: float | Tensor) -> Tensor:
        """Return standardised features [..., width].

        Args:
            features: Of any leading shape; every entry of it counts the same.
            momentum: Share of this batch in the new statistics; with 0 they stay as they are. Fewer
                than two entries leave them too.
        """
        standardised = self.balanced(features)
        rows = features.reshape(-1, features.shape[-1]).to(self.mean.dtype)
        count = reduce_sum(rows.new_full((), len(rows)))
        mean = reduce_sum(rows.sum(0)) / count.clamp(min=1)
        squares = reduce_sum((rows - mean).square().sum(0))
        deviation = (squares / (count - 1).clamp(min=1)).sqrt() + self.eps
        share = (count > 1).to(rows.dtype) * momentum
        self.mean.mul_(1 - share).add_(share * mean)
        self.std.mul_(1 - share).add_(share * deviation)
        return standardised

    def balanced(self, features: Tensor) -> Tensor:
        """Return the same features; the statistics stay as they are."""
        return (features - self.mean) / (self.std + self.eps)


def phi_s(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean [D] and matrix [D, D] that give every channel variance 1 without distortion.

    Ranzinger et al., "PHI-S: Distribution Balancing for Label-Free Multi-Teacher Distillation",
    arXiv:2410.01680. `(features - mean) @ matrix.T` is balanced: the matrix is a rotation that
    spreads the variance over all channels alike, and one factor, so that distances keep their
    ratios. The inverse is `factor**2 * y @ matrix + mean`, with `factor` the norm of a row's
    inverse: `1 / matrix[0].norm()`.

    Every eigenvector is turned so that its entry of largest absolute value is positive.

    Args:
        features: Of many images, [M, D], M far above D; tokens are rows.

    Returns:
        Both in float64.

    Raises:
        UserError: If there are fewer than two rows, or all are the same.
    """
    if features.dim() != 2 or len(features) < 2:
        raise UserError(
            f"phi_s needs features [M, D] of two images at least, not {list(features.shape)}"
        )
    rows = features.detach().double()
    mean = rows.mean(0)
    centred = rows - mean
    return mean, phi_s_matrix(centred.T @ centred / (len(rows) - 1))


def phi_s_matrix(covariance: Tensor) -> Tensor:
    """Return the matrix of `phi_s` for an unbiased covariance [D, D].

    Raises:
        UserError: If nothing varies, or something is not finite.
    """
    if not bool(covariance.isfinite().all()):
        raise UserError("PHI-S: features of the teacher are not finite; what does it output?")
    values, vectors = torch.linalg.eigh(covariance.double())
    factor = values.clamp(min=0).mean().sqrt()
    if not factor > 0:
        raise UserError("PHI-S: the teacher's features are the same for all images; tap others")
    largest = vectors.abs().argmax(0, keepdim=True)
    vectors = vectors * vectors.gather(0, largest).sign()
    return hadamard(len(values)).to(vectors.device) @ vectors.T / factor


def hadamard(size: int) -> Tensor:
    """Return a Hadamard matrix with rows of unit length, entries +-1 / sqrt(size), float64.

    By Sylvester's construction where `size` is a power of two, else by Paley's first or second for
    the largest part of it that they fit, and Sylvester's for the rest. Where neither fits, a
    seeded random orthogonal matrix takes its place, and the console says so once; with it, PHI-S
    gives variances of about 1.

    Args:
        size: Number of rows and columns.

    Raises:
        UserError: If it is below 1.
    """
    if size < 1:
        raise UserError(f"hadamard: wanted a size of at least 1, got {size}")
    power = (size & -size).bit_length() - 1  # of two, in the size
    if size == 1 << power:
        return _sylvester(power) / size**0.5
    for count in range(power - 1, -1, -1):
        part = size >> count
        if (core := _paley(part)) is not None:
            return torch.kron(_sylvester(count), core) / size**0.5
    return _random_orthogonal(size)


def _sylvester(power: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(power):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def _paley(size: int) -> Tensor | None:
    """Return the matrix of Paley's first or second construction, or None if neither fits."""
    prime = size - 1
    if prime % 4 == 3 and _is_prime(prime):
        bordered = _bordered(prime)
        bordered[1:, 0] = -1
        return bordered + torch.eye(size, dtype=torch.float64)
    prime = size // 2 - 1
    if size % 2 == 0 and prime % 4 == 1 and _is_prime(prime):
        off, on = torch.tensor([[[1, 1], [1, -1]], [[1, -1], [-1, -1]]], dtype=torch.float64)
        identity = torch.eye(prime + 1, dtype=torch.float64)
        return torch.kron(_bordered(prime), off) + torch.kron(identity, on)
    return None


def _bordered(prime: int) -> Tensor:
    """Return Legendre symbols of row - column, below a row and beside a column of ones."""
    numbers = torch.arange(prime)
    symbols = torch.full((prime,), -1.0, dtype=torch.float64)
    symbols[numbers.square() % prime] = 1
    symbols[0] = 0
    matrix = torch.ones(prime + 1, prime + 1, dtype=torch.float64)
    matrix[0, 0] = 0
    matrix[1:, 1:] = symbols[(numbers[:, None] - numbers) % prime]
    return matrix


def _random_orthogonal(size: int) -> Tensor:
    if size not in _noted:
        _noted.add(size)
        print_note(
            f"PHI-S: no Hadamard matrix of size {size} can be built here, so a random rotation "
            "takes its place; the variances of channels are then about 1, not exactly"
        )
    generator = torch.Generator().manual_seed(size)
    signs = torch.randint(2, (size, size), generator=generator).double() * 2 - 1
    return torch.linalg.qr(signs).Q


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, isqrt(number) + 1))
