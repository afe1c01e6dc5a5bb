"""Measures of features that need no labels; tensors stay on their device."""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from kd_core.functional import full_precision, require_same_shape


@torch.no_grad()
def effective_rank(features: Tensor) -> Tensor:
    """Return in how many directions features vary, by the entropy of their singular values.

    exp(-sum p log p) with p the singular values of the centred features, divided by their sum; Roy
    and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007. Small
    values show collapse. At most min(N - 1, D), so only values of equally many images compare.

    Args:
        features: [N, ...], flattened to [N, D].

    Returns:
        A scalar from 1 to min(N - 1, D), float64; 0 for features that are the same in all images.
    """
    x = features.flatten(1).double()
    x = x - x.mean(0)
    # The smaller of the two matrices of products: its eigenvalues are the squares.
    products = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    squares = torch.linalg.eigvalsh(products).clamp(min=0)
    # Below rounding, an eigenvalue says nothing; its root would count.
    largest = features.flatten(1).double().square().sum().clamp(min=1e-300)
    values = squares.where(squares > 1e-13 * largest, 0).sqrt()
    total = values.sum()
    share = values / total.clamp(min=1e-300)
    entropy = -torch.special.xlogy(share, share).sum()
    return torch.where(total > 0, entropy.exp(), 0)


class FeatureError:
    """How well vectors are predicted, from batches: cosine and relative error.

    `cosine` is the mean over all vectors of a set. `relative_error` is the root of the sum of their
    squared errors over the sum of the squared targets: 0 for exact predictions, 1 for zeros.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sums: Tensor | None = None  # of cosines, squared errors, squared targets

    @torch.no_grad()
    @full_precision
    def add(self, prediction: Tensor, target: Tensor) -> None:
        """Take one batch: predictions and targets [..., D].

        Raises:
            UserError: If their shapes differ.
        """
        require_same_shape(prediction, target)
        cosines = F.cosine_similarity(prediction.double(), target.double(), dim=-1)
        parts = cosines, (prediction.double() - target).square(), target.double().square()
        sums = torch.stack([part.sum() for part in parts])
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += cosines.numel()

    def sums(self, device: torch.device | str = "cpu") -> Tensor:
        """Return what processes add up before `measured`: float64 [4]."""
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        sums = sums if self._sums is None else self._sums
        return torch.cat([sums, sums.new_tensor([self._count])])


def measured(sums: Tensor) -> dict[str, float]:
    """Return `cosine` and `relative_error` of the sums of a `FeatureError`; waits for the device.

    Where all targets are zero, the relative error is that of targets of length one.
    """
    cosine, error, target, count = sums.tolist()
    return {
        "cosine": cosine / max(count, 1),
        "relative_error": (error / (target if target > 0 else max(count, 1))) ** 0.5,
    }
