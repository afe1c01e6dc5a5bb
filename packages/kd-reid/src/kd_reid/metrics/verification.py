"""Are two images of one person? Shares of pairs that a threshold of the distance accepts."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from kd_core.errors import UserError
from torch import Tensor

from kd_reid.metrics.labels import JUNK, Labels, left_out

_BINS = 2**16

Blocks = Callable[[], Iterable[Tensor]]
"""Gives the distances from the start again: rows of some queries at a time, in order, [n, G]."""


class Accepted(NamedTuple):
    """What a threshold accepts: all pairs whose distance is smaller than it."""

    tpr: float  # share of the right pairs
    fpr: float  # share of the wrong pairs
    threshold: float  # in the distance's own unit


@torch.no_grad()
def tpr_at_fpr(blocks: Blocks, labels: Labels, rates: Sequence[float]) -> list[Accepted]:
    """Return for each rate the largest threshold whose share of accepted wrong pairs is not above.

    Pairs are those that ranking counts: not of one person by one camera, and no junk. The threshold
    is a distance of a wrong pair, exact in float32: the pairs are counted by the upper half of
    their bits, then by the lower half, so that no distance is kept.

    Args:
        blocks: Called twice.
        labels: Of queries and gallery.
        rates: False positive rates, each above 0 and below 1.

    Raises:
        UserError: If a rate is out of range, or there are no right or no wrong pairs.
    """
    for rate in rates:
        if not 0 < rate < 1:
            raise UserError(f"a false positive rate is above 0 and below 1, got {rate}")
    upper = _count(blocks(), labels, lambda keys: (keys >> 16) + _BINS // 2)
    right, wrong = upper.sum(1).tolist()
    if not right or not wrong:
        missing = "right" if not right else "wrong"
        raise UserError(f"no {missing} pairs of query and gallery, so TPR at FPR has no meaning")
    allowed = [int(Fraction(str(rate)) * wrong) for rate in rates]
    sums = upper.cumsum(1)
    bins = [int((sums[1] > count).int().argmax()) for count in allowed]
    lower = {place: _lower(blocks(), labels, place) for place in dict.fromkeys(bins)}
    found = []
    for count, place in zip(allowed, bins, strict=True):
        before = sums[:, place] - upper[:, place]
        inside = lower[place].cumsum(1)
        last = int((before[1] + inside[1] > count).int().argmax())
        passed = before + inside[:, last] - lower[place][:, last]
        key = ((place - _BINS // 2) << 16) + last
        found.append(Accepted(int(passed[0]) / right, int(passed[1]) / wrong, _value(key)))
    return found


def _lower(blocks: Iterable[Tensor], labels: Labels, place: int) -> Tensor:
    """Count the pairs of one bin of the upper half by their lower half, [2, bins]."""

    def low(keys: Tensor) -> Tensor:
        here = (keys >> 16) + _BINS // 2 == place
        return torch.where(here, keys & (_BINS - 1), _BINS)

    return _count(blocks, labels, low)[:, :_BINS]


def _count(blocks: Iterable[Tensor], labels: Labels, place: Callable[[Tensor], Tensor]) -> Tensor:
    """Count right and wrong pairs by the place of their distance, int64 [2, bins + 1]."""
    counts = torch.zeros(2, _BINS + 1, dtype=torch.int64)
    start = 0
    for distance in blocks:
        here = slice(start, start + len(distance))
        same = labels.query_ids[here, None] == labels.gallery_ids
        gone = left_out(same, labels.query_cams[here], labels.gallery_ids, labels.gallery_cams)
        gone |= labels.query_ids[here, None] == JUNK
        places = place(_keys(distance))
        for side, chosen in enumerate((same & ~gone, ~same & ~gone)):
            counts[side] += places[chosen].bincount(minlength=_BINS + 1).cpu()
        start += len(distance)
    return counts


def _keys(distance: Tensor) -> Tensor:
    """Return whole numbers, int32, that have the order of float32 distances."""
    bits = (distance.float() + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _value(key: int) -> float:
    bits = key ^ 0x7FFFFFFF if key < 0 else key
    return float(torch.tensor([bits], dtype=torch.int32).view(torch.float32))
