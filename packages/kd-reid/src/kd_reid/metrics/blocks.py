"""Distances of embeddings, some rows at a time, so that a search of any size fits into memory."""

import time
from collections.abc import Callable, Iterator
from itertools import chain
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import UserError
from kd_core.functional import full_precision
from torch import Tensor

from kd_reid.metrics.distance import (
    check_embeddings,
    from_norms,
    one_minus_dot,
    squared_norms,
)
from kd_reid.metrics.encodings import Sharing, encodings, tiny
from kd_reid.metrics.reranking import check_neighbours, check_share

CHUNK = 2**22  # distances at a time, about 30 bytes each
SHARED = 2**20  # weights that two images share, at a time, about 50 bytes each
_PASSES = 2.5  # over all rows: neighbours, their weights, and what few images share


class Distances:
    """Distances of queries to a gallery, and re-ranked ones; never all in memory.

    Equal to `squared_euclidean`, `cosine_distance` and `rerank` of their roots, up to rounding.

    Args:
        query: Embeddings, [Q, D].
        gallery: Embeddings, [G, D].
        kind: "euclidean", squared as in torchreid, or "cosine".

    Raises:
        UserError: If the two are not matrices of some rows and equal widths, or not finite.
    """

    def __init__(
        self, query: Tensor, gallery: Tensor, kind: Literal["euclidean", "cosine"] = "euclidean"
    ) -> None:
        check_embeddings(query, gallery)
        if not len(query) or not len(gallery):
            raise UserError(f"a search needs images, got {len(query)} and {len(gallery)}")
        for side in (query, gallery):
            if not all(bound.isfinite() for bound in side.aminmax()):
                raise UserError("embeddings hold values that are not finite; look at the network")
        sides = query.float(), gallery.float()
        if kind == "cosine":
            sides = F.normalize(sides[0]), F.normalize(sides[1])
        self.query, self.gallery = sides
        self._norms = None if kind == "cosine" else tuple(map(squared_norms, sides))

    @torch.no_grad()
    @full_precision
    def rows(self, images: Tensor, side: int) -> Tensor:
        """Return the distances of some images to all queries (0), or to the gallery (1)."""
        others = (self.query, self.gallery)[side]
        if self._norms is None:
            return one_minus_dot(images, others)
        return from_norms(images, others, squared_norms(images), self._norms[side])

    def blocks(self) -> Iterator[Tensor]:
        """Yield the distances of some queries to the gallery, [n, G], in order."""
        for images in self.query.split(max(CHUNK // len(self.gallery), 1)):
            yield self.rows(images, 1)

    @torch.no_grad()
    def reranked(
        self,
        *,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
        squared_twice: bool = False,
        announce: Callable[[float], None] | None = None,
    ) -> Iterator[Tensor]:
        """Yield the re-ranked distances of some queries to the gallery, [n, G], in order.

        Args:
            k1: See `rerank`.
            k2: See `rerank`.
            lambda_value: See `rerank`.
            squared_twice: See `rerank`.
            announce: Called with the seconds that it will take, about, before it starts.

        Raises:
            UserError: If a number is out of range.
        """
        check_neighbours(k1, k2)
        check_share(lambda_value)
        queries, images = len(self.query), len(self.gallery)
        total, power = queries + images, 4 if squared_twice else 2
        size = max(CHUNK // total, 1)

        def chunks() -> Iterator[Tensor]:
            sides = self.query.split(size), self.gallery.split(size)
            return (self._relative(rows, power) for rows in chain(*sides))

        if announce is not None:
            announce(self._seconds(size, power, max(k1 + 1, k2)))
        shared = Sharing(encodings(chunks, total, k1, k2), images, SHARED)
        start = 0
        for rows in self.query.split(size):
            stop = start + len(rows)
            far = self._relative(rows, power)[:, queries:]
            yield shared.distances(start, stop).lerp_(far, lambda_value)
            start = stop

    def _relative(self, rows: Tensor, power: int) -> Tensor:
        """Return powers of some images' distances to all, each image's divided by its largest."""
        plain = torch.cat([self.rows(rows, side) for side in (0, 1)], 1)
        plain = plain.clamp_(min=0).sqrt_().pow_(power)
        return plain.div_(plain.amax(1, keepdim=True).clamp(min=tiny(plain)))

    def _seconds(self, size: int, power: int, nearest: int) -> float:
        """Try some rows, and return about how long all of them will take."""
        rows = self.gallery[:size]
        total = len(self.query) + len(self.gallery)
        taken = []
        for _ in range(3):  # the first is slower
            start = time.perf_counter()
            self._relative(rows, power).topk(min(nearest, total), largest=False).indices.cpu()
            taken.append(time.perf_counter() - start)
        return _PASSES * median(taken) * total / len(rows)


def in_words(seconds: float) -> str:
    """Return a time as people say it."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
