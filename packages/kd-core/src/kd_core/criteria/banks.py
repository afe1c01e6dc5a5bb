"""Memory banks in float16: half the memory; what is computed of them is float32."""

from typing import Any, Literal

import torch
from torch import Tensor

from kd_core.errors import UserError

BankPrecision = Literal["fp32", "fp16"]

COLDEST_IN_FP16 = 0.02
"""Divides cosines; below it, a bank in float16 would change losses by more than 1e-3."""

_MOST = 2**24
"""Numbers of a bank's rows that are held in float32 at once: 64 MB."""


def bank_type(name: str, precision: BankPrecision, temperature: float) -> torch.dtype:
    """Return the type of the numbers of a bank of unit vectors; "fp32" is torch's default type.

    Args:
        name: Of the criterion, for messages.
        precision: "fp32" or "fp16".
        temperature: Divides the cosines.

    Raises:
        UserError: If float16 is too coarse for the temperature.
    """
    if precision == "fp16" and temperature < COLDEST_IN_FP16:
        raise UserError(
            f"{name}: bank_precision='fp16' moves cosines by some 1e-5, which a temperature of "
            f"{temperature:g} magnifies; set {COLDEST_IN_FP16} or more, or bank_precision='fp32'"
        )
    return torch.float16 if precision == "fp16" else torch.get_default_dtype()


def products(rows: Tensor, vectors: Tensor) -> Tensor:
    """Multiply each vector [N, D] with its own rows [N, K, D]: [N, K], in the vectors' type.

    The gradient is that of the vectors alone. Of float16 rows the backward keeps the rows as they
    are; only a part of them is in float32 at a time.
    """
    if rows.dtype == vectors.dtype:
        return (rows @ vectors.unsqueeze(2)).squeeze(2)
    found: Tensor = _Products.apply(rows, vectors)
    return found


def products_with_all(bank: Tensor, vectors: Tensor) -> Tensor:
    """Multiply each vector [N, D] with all rows of a bank [K, D]: [N, K], in the vectors' type.

    The bank is copied, since it may be written to before the backward reads it, in its own type.
    """
    copied = bank.clone()
    if bank.dtype == vectors.dtype:
        return vectors @ copied.T
    found: Tensor = _ProductsWithAll.apply(copied, vectors)
    return found


class _ProductsWithAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bank: Tensor, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(bank)
        return vectors @ bank.to(vectors).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (bank,), (gradient,) = ctx.saved_tensors, gradients
        return None, gradient @ bank.to(gradient)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        found = vectors.new_empty(rows.shape[:2])
        for part in _parts(rows):
            found[part] = (rows[part].to(vectors) @ vectors[part].unsqueeze(2)).squeeze(2)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (rows,), (gradient,) = ctx.saved_tensors, gradients
        found = gradient.new_empty(len(rows), rows.shape[2])
        for part in _parts(rows):
            found[part] = (gradient[part].unsqueeze(1) @ rows[part].to(gradient)).squeeze(1)
        return None, found


def _parts(rows: Tensor) -> list[slice]:
    """Return slices of the first dimension, each of some rows."""
    size = max(1, _MOST // max(1, rows[:1].numel()))
    return [slice(start, start + size) for start in range(0, len(rows), size)]
