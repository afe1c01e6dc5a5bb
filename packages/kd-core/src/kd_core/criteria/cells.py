"""Cells of a grid over maps, and how every channel is distributed in each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_core.errors import UserError


def cell_statistics(maps: Tensor, grid: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of every channel in every cell, [N, grid * grid, C] each.

    The deviation is the root of the unbiased variance plus `eps`. The cells are those of adaptive
    pooling: they overlap where a side is not a multiple of their number.

    Args:
        maps: [N, C, H, W].
        grid: Cells along each side.
        eps: Added to the variances.

    Raises:
        UserError: If a cell has a single position; see `require_large_cells`.
    """
    require_large_cells(maps.shape[2:], grid)
    rows, columns = (_cells(side, grid) for side in maps.shape[2:])
    means, deviations = [], []
    for cell in (maps[..., y, x].flatten(2) for y in rows for x in columns):
        mean = cell.mean(2)
        # Not torch.var, which warns of an empty batch.
        squares = (cell - mean.unsqueeze(2)).square().sum(2)
        means.append(mean)
        deviations.append((squares / (cell.shape[2] - 1) + eps).sqrt())
    return torch.stack(means, 1), torch.stack(deviations, 1)


def require_large_cells(size: Sequence[int], grid: int) -> None:
    """Reject a grid that has a cell of a single position, which has no variance.

    Args:
        size: Height and width of the map.
        grid: Cells along each side.

    Raises:
        UserError: Says how many cells there can be.
    """
    if _smallest(size, grid) > 1:
        return
    most = max((cells for cells in range(1, grid) if _smallest(size, cells) > 1), default=0)
    remedy = f"set grid to at most {most}" if most else "tap a larger map"
    raise UserError(
        f"a {size[0]}x{size[1]} map in {grid}x{grid} cells has cells of a single position, where "
        f"nothing varies; {remedy}"
    )


def _cells(side: int, grid: int) -> list[slice]:
    return [slice(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]


def _smallest(size: Sequence[int], grid: int) -> int:
    """Return the positions of the smallest cell."""
    height, width = (min(part.stop - part.start for part in _cells(side, grid)) for side in size)
    return height * width
