"""Measures of one network or of two; tensors that stay on their device."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kd_core.errors import UserError
from kd_core.functional import batch_mean, centred, full_precision

SMALLEST_BATCH = 4  # the unbiased HSIC needs four different samples


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
def average_precision(scores: Tensor, label: Tensor) -> Tensor:
    """Return how well each class's images are ranked before all others: its average precision.

    The mean, over the images that have the class, of the precision at their rank; equal scores
    share the lowest of their ranks. That is scikit-learn's `average_precision_score`, without
    interpolation. The mean over the classes that occur is mAP.

    Args:
        scores: [N, C]; logits will do.
        label: 1 or 0, or below 0 or NaN where it is not known, which does not count; [N, C].

    Returns:
        Fractions of 1, float64 [C]; NaN for a class that no image has.
    """
    known = label >= 0
    # Unknown ones go to the end, where they change no precision before them.
    scores, order = scores.masked_fill(~known, -torch.inf).sort(0, descending=True)
    hits = (label > 0.5).gather(0, order).double()
    rank = torch.arange(1, len(scores) + 1, device=scores.device)[:, None].expand_as(scores)
    ends = torch.ones_like(scores, dtype=torch.bool)
    ends[:-1] = scores[1:] != scores[:-1]
    shared = rank.masked_fill(~ends, len(scores)).flip(0).cummin(0).values.flip(0)
    found = hits.cumsum(0).gather(0, shared - 1) if len(scores) else hits
    return (hits * found / shared).sum(0) / hits.sum(0)


@torch.no_grad()
def label_f1(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return CF1 and OF1 of classes predicted where their logit is above 0.

    As usual since Wang et al., "CNN-RNN: A Unified Framework for Multi-label Image Classification",
    CVPR 2016, arXiv:1604.04573: CF1 is the harmonic mean of CP and CR, the precision and recall of
    each class averaged over the classes, and OF1 of the precision and recall over all labels. Here
    the averages are over the classes that occur; the precision of one that is never predicted is 0.

    Args:
        logits: [N, C].
        label: See `average_precision`.

    Returns:
        Two scalars, fractions of 1.
    """
    present = label > 0.5
    predicted = (logits > 0) & (label >= 0)
    right, said, true = ((x).sum(0).double() for x in (predicted & present, predicted, present))
    occurs = true > 0
    precision = (right / said.clamp(min=1))[occurs].mean()
    recall = (right / true.clamp(min=1))[occurs].mean()
    by_class = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return by_class, 2 * right.sum() / (said.sum() + true.sum()).clamp(min=1)


class CalibrationBins(NamedTuple):
    """Sums over the samples whose confidence falls in a bin, [bins] each."""

    size: Tensor
    confidence: Tensor
    correct: Tensor


@torch.no_grad()
@full_precision
def calibration_bins(logits: Tensor, label: Tensor, bins: int = 15) -> CalibrationBins:
    """Sort samples by confidence, the probability of their arg-max, into bins of equal width.

    The bins of a reliability diagram (Guo et al., see `expected_calibration_error`), open at the
    left and closed at the right.

    Args:
        logits: [N, C].
        label: int64 [N].
        bins: Number of bins.
    """
    confidence, prediction = logits.softmax(1).max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    where = torch.bucketize(confidence, edges[1:-1])
    correct = (prediction == label).to(confidence.dtype)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(bins).index_add(0, where, values)

    return CalibrationBins(total(torch.ones_like(confidence)), total(confidence), total(correct))


@torch.no_grad()
def expected_calibration_error(logits: Tensor, label: Tensor, bins: int = 15) -> Tensor:
    """Return the gap between confidence and accuracy, averaged over bins of equal width.

    Equation 3 of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
    arXiv:1706.04599.

    Args:
        logits: [N, C].
        label: int64 [N].
        bins: Number of bins of the confidence; results with different numbers do not compare.

    Returns:
        A fraction of 1 (not percent).
    """
    found = calibration_bins(logits, label, bins)
    return (found.confidence - found.correct).abs().sum() / max(len(label), 1)


def agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the fraction of samples for which both logits [N, C] have the same arg-max."""
    return batch_mean((student.argmax(1) == teacher.argmax(1)).float())


@torch.no_grad()
@full_precision
def noise_unevenness(logits: Tensor) -> Tensor:
    """Return how uneven the probabilities besides the largest are, averaged over the samples.

    The sum over all classes c but the arg-max of |p_c - (1 - p_max) / (C - 1)|, averaged over the
    samples. From the authors' code, which fits four classes only, of Shao and Chen,
    "Multi-granularity for Knowledge Distillation", IVC 2021, arXiv:2108.06681.

    Args:
        logits: [N, C].

    Returns:
        A scalar in [0, 2); 0 where all other classes have equal probabilities.
    """
    probability = logits.softmax(1)
    largest = probability.argmax(1, keepdim=True)
    rest = probability.scatter(1, largest, 0)
    even = rest.sum(1, keepdim=True) / (logits.shape[1] - 1)  # NaN for one class; replaced below
    return batch_mean((rest - even).abs().scatter(1, largest, 0))


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
    x, y = centred(x.flatten(1)), centred(y.flatten(1))
    return (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())


@torch.no_grad()
def minibatch_cka(batches: Iterable[tuple[Sequence[Tensor], Sequence[Tensor]]]) -> Tensor:
    """Compare all layers of two networks by linear CKA, holding one batch at a time.

    Equation 4 of Nguyen et al., "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021,
    arXiv:2010.15327: HSIC is averaged over the batches, each value unbiased, so that the result
    tends to that of the whole set whatever the size of the batches. Unlike `linear_cka`, it does
    not rise where features outnumber samples. Batches are weighted by their number of samples; the
    paper has batches of equal size.

    Args:
        batches: Random parts of a set (not sorted by class): for each, the features of the
            student's layers and of the teacher's layers, [n, ...] each, flattened to [n, D].
            Batches of fewer than four samples are left out, since the estimate needs as many.

    Returns:
        [student's layers, teacher's layers], 1 for equal up to rotation and scale; noise can take
        it a little out of [0, 1]. NaN where a layer is constant.

    Raises:
        UserError: If no batch has four samples.
    """
    cross = own = shown = torch.zeros(())
    seen = 0
    for student, teacher in batches:
        count = len(student[0])
        if count < SMALLEST_BATCH:
            continue
        x, y = _centred_grams(student), _centred_grams(teacher)
        cross = cross.to(x) + count * unbiased_hsic(x[:, None], y)
        own = own.to(x) + count * unbiased_hsic(x, x)
        shown = shown.to(x) + count * unbiased_hsic(y, y)
        seen += count
    if not seen:
        raise UserError(f"CKA needs a batch of {SMALLEST_BATCH} samples at least")
    return cross / (own[:, None] * shown).sqrt()


def unbiased_hsic(k: Tensor, m: Tensor) -> Tensor:
    """Estimate the Hilbert-Schmidt independence criterion of two kernels without bias.

    Equation 5 of Song et al., "Feature Selection via Dependence Maximization", JMLR 13, 2012.

    Args:
        k: Kernel of the samples, symmetric [..., n, n], n at least 4.
        m: Another of the same samples; the dimensions before are broadcast.

    Returns:
        [...]; negative values occur.
    """
    n = k.shape[-1]
    diagonal = torch.eye(n, dtype=torch.bool, device=k.device)
    k, m = k.masked_fill(diagonal, 0), m.masked_fill(diagonal, 0)
    k_rows, m_rows = k.sum(-1), m.sum(-1)
    total = k_rows.sum(-1) * m_rows.sum(-1) / ((n - 1) * (n - 2))
    rows = (k_rows * m_rows).sum(-1) * 2 / (n - 2)
    return ((k * m).sum((-2, -1)) + total - rows) / (n * (n - 3))


@full_precision
def _centred_grams(layers: Sequence[Tensor]) -> Tensor:
    """Return the Gram matrices [layers, n, n] of centred features, in float64.

    HSIC does not depend on the mean; left in, it would drown the rest in rounding.
    """
    flat = [layer.flatten(1) for layer in layers]
    centred = [rows - rows.mean(0) for rows in flat]
    return torch.stack([(rows @ rows.T).double() for rows in centred])
