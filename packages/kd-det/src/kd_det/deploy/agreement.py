"""Whether two runtimes of one detector find the same objects in an image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-3  # pixels of boxes for each 100 of the image's longer side, and scores
MAY_FLIP = 0.02
"""Part of the objects that one may find and the other not: with a score or an overlap so near to a
threshold that rounding decides. Of fewer than 50 objects that is none."""


class Agreement(NamedTuple):
    """What was compared.

    Attributes:
        objects: Found by the detector itself, in all images.
        unmatched: Those of them, and of the file, without a counterpart.
        box: Largest difference of boxes in pixels.
        score: Largest difference of scores.
        other: Largest difference of masks and keypoints.
    """

    objects: int = 0
    unmatched: int = 0
    box: float = 0.0
    score: float = 0.0
    other: float = 0.0

    def __add__(self, more: "Agreement") -> "Agreement":  # type: ignore[override]
        counts = self.objects + more.objects, self.unmatched + more.unmatched
        return Agreement(*counts, *map(max, self[2:], more[2:]))

    @property
    def holds(self) -> bool:
        """Whether the two are the same except for rounding."""
        return self.unmatched <= MAY_FLIP * self.objects


def compare(found: Sequence[Tensor], wanted: Sequence[Tensor], longer_side: int) -> Agreement:
    """Compare what a file finds in an image with what the detector finds, in any order.

    Args:
        found: Boxes, scores, classes, then what else there is.
        wanted: The same of the detector.
        longer_side: Of the image, in pixels.
    """
    count = len(wanted[1])
    pairs = _pairs(found, wanted, TOLERANCE * longer_side / 100)
    unmatched = count + len(found[1]) - 2 * len(pairs)
    if not pairs:
        return Agreement(count, unmatched)
    first, second = torch.tensor(pairs).T
    box, score, _, *others = (
        float((one[first].double() - other[second].double()).abs().max())
        for one, other in zip(found, wanted, strict=True)
    )
    if not all(off <= 10 * TOLERANCE for off in others):  # false for NaN too
        unmatched += count
    return Agreement(count, unmatched, box, score, max(others, default=0.0))


def _pairs(
    found: Sequence[Tensor], wanted: Sequence[Tensor], pixels: float
) -> list[tuple[int, int]]:
    """Return the places of equal objects; equal scores may be in another order."""
    apart = (found[0].double()[:, None] - wanted[0].double()[None]).abs().amax(-1)
    off = (found[1].double()[:, None] - wanted[1].double()[None]).abs()
    same = (apart <= pixels) & (off <= TOLERANCE) & (found[2][:, None] == wanted[2][None])
    pairs, taken = [], torch.zeros(len(wanted[1]), dtype=torch.bool)
    for place, row in enumerate(same):
        free = (row & ~taken).nonzero().flatten()
        if len(free):
            best = int(free[apart[place, free].argmin()])
            taken[best] = True
            pairs.append((place, best))
    return pairs
