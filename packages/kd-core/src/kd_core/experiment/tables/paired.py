"""Differences between runs of equal seeds, with their 95 % interval."""

import math
from collections.abc import Mapping
from statistics import mean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """How much higher one row is than another, over the seeds that both have.

    Attributes:
        mean: Of the differences.
        sd: Their standard deviation (n - 1); None for one seed.
        low: Lower end of the 95 % interval of the mean; None for one seed.
        high: Upper end.
        seeds: Number of the seeds that both have.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    seeds: int


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Return the difference of two rows; None if they have no seed in common.

    The interval is that of the paired t-test: differences between runs of one seed, so that what
    the seed does to both rows cancels. It assumes that they are about normally distributed.

    Args:
        ours: Values by seed.
        theirs: Those that are subtracted.
    """
    gaps = [value - theirs[seed] for seed, value in ours.items() if seed in theirs]
    if not gaps:
        return None
    if len(gaps) == 1:
        return Difference(gaps[0], None, None, None, 1)
    centre, sd = mean(gaps), stdev(gaps)
    reach = t_quantile(CONFIDENCE, len(gaps) - 1) * sd / math.sqrt(len(gaps))
    return Difference(centre, sd, centre - reach, centre + reach, len(gaps))


def t_quantile(confidence: float, freedom: int) -> float:
    """Return t with P(|T| <= t) = confidence, of Student's distribution.

    Args:
        confidence: Between 0 and 1.
        freedom: Degrees of freedom, 1 or more.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halving: as exact as floats are
        middle = (low + high) / 2
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Return P(|T| <= t) for angle = arctan(t / sqrt(freedom)).

    The finite sums of Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 4.
    """
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
