"""Measures of one network or of two; tensors that stay on their device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_core.functional import batch_mean, full_precision


def accuracy(logits: Tensor, label: Tensor, topk: Sequence[int] = (1, 5)) -> tuple[Tensor, ...]:
    """Return, for each k, the fraction of samples whose label is among the k largest logits.

    Args:
        logits: [N, C].
        label: int64 [N].
        topk: Each k is cut to the number of classes.

    Returns:
        One scalar a k, a fraction of 1 (not percent).
    """
    limit = min(max(topk), logits.shape[1])
    hit = logits.topk(limit, dim=1).indices == label.unsqueeze(1)
    return tuple(batch_mean(hit[:, :k].any(1).float()) for k in topk)


@torch.no_grad()
@full_precision
def expected_calibration_error(logits: Tensor, label: Tensor, bins: int = 15) -> Tensor:
    """Return the gap between confidence and accuracy, averaged over bins of equal width.

    Equation 3 of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
    arXiv:1706.04599. Bins are open at the left and closed at the right.

    Args:
        logits: [N, C].
        label: int64 [N].
        bins: Number of bins of the confidence; results with different numbers do not compare.

    Returns:
        A fraction of 1 (not percent).
    """
    confidence, prediction = logits.softmax(1).max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    where = torch.bucketize(confidence, edges[1:-1])
    surplus = confidence - (prediction == label).to(confidence.dtype)
    return surplus.new_zeros(bins).index_add(0, where, surplus).abs().sum() / max(len(label), 1)


def agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the fraction of samples for which both logits [N, C] have the same arg-max."""
    return batch_mean((student.argmax(1) == teacher.argmax(1)).float())


@full_precision
def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Compare two representations of the same samples, up to rotation and scale.

    Linear centred kernel alignment, section 3 of Kornblith et al., "Similarity of Neural Network
    Representations Revisited", ICML 2019, arXiv:1905.00414.

    Args:
        x: [N, ...], flattened to [N, D].
        y: [N, ...], flattened to [N, E]; E may differ from D.

    Returns:
        A scalar in [0, 1], 1 for equal up to rotation and scale; NaN if either is constant.
    """
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(0), y - y.mean(0)
    return (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
