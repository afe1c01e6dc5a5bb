"""Re-ranking by the neighbours that query and gallery images share."""

from collections.abc import Iterator
from itertools import chain

import torch
from kd_core.errors import UserError
from kd_core.functional import full_precision
from torch import Tensor

from kd_reid.metrics.encodings import Sharing, encodings, tiny

CHUNK = 2**22  # distances, or weights that two images share, at a time; up to 50 bytes each


@torch.no_grad()
@full_precision
def rerank(
    query_query: Tensor,
    query_gallery: Tensor,
    gallery_gallery: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    squared_twice: bool = False,
) -> Tensor:
    """Mix distances with the Jaccard distances of the images' k-reciprocal neighbours.

    Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
    arXiv:1701.08398, as in the authors' code: distances are squared and divided by each image's
    largest. Beside its arguments it needs about twice the memory of `query_gallery`.

    torchreid passes squared distances to that code, so its published numbers use the fourth power;
    `squared_twice` reproduces them.

    Args:
        query_query: Plain distances, not squared, [Q, Q]; roots of `squared_euclidean`.
        query_gallery: The same, [Q, G].
        gallery_gallery: The same, [G, G].
        k1: Number of nearest images that reciprocal neighbours are searched for among.
        k2: Number of nearest images, the image included, that its encoding is averaged over.
        lambda_value: Share of the distances in the mixture; the rest is the Jaccard distances'.
        squared_twice: Take the fourth power of the distances instead of the second.

    Returns:
        [Q, G], between 0 and 1.

    Raises:
        UserError: If shapes do not fit, a distance is not finite, or a number is out of range.
    """
    _check(query_query, query_gallery, gallery_gallery)
    check_neighbours(k1, k2)
    check_share(lambda_value)
    queries, total = len(query_query), sum(query_gallery.shape)
    size, power = max(CHUNK // total, 1), 4 if squared_twice else 2
    halves = (query_query, query_gallery.T), (query_gallery, gallery_gallery)

    def chunks() -> Iterator[Tensor]:  # computed again each time, since all chunks need much memory
        return chain.from_iterable(_relative(*half, power, size) for half in halves)

    shared = Sharing(encodings(chunks, total, k1, k2), total - queries, CHUNK)
    mixture = query_gallery.new_empty(query_gallery.shape)
    start = 0
    for rows in _relative(*halves[0], power, size):
        stop = start + len(rows)
        mixture[start:stop] = shared.distances(start, stop).lerp_(rows[:, queries:], lambda_value)
        start = stop
    return mixture


@torch.no_grad()
@full_precision
def jaccard_distance(distance: Tensor, *, k1: int = 20, k2: int = 6) -> Tensor:
    """Return the Jaccard distances of the images' k-reciprocal neighbours, all with all.

    The same distances as in `rerank`, for clustering: one set is query and gallery at once. Needs
    about three times the memory of its argument.

    Args:
        distance: Plain distances, not squared, [N, N].
        k1: See `rerank`.
        k2: See `rerank`.

    Returns:
        [N, N], between 0 and 1.

    Raises:
        UserError: If the shape does not fit, a distance is not finite, or a number is below 1.
    """
    _check(distance, distance, distance)
    check_neighbours(k1, k2)
    total = len(distance)

    def chunks() -> Iterator[Tensor]:
        return _relative(distance[:0], distance, 2, max(CHUNK // total, 1))

    shared = Sharing(encodings(chunks, total, k1, k2), total, CHUNK)
    return shared.distances(0, total).clamp_(0, 1)


def _relative(to_query: Tensor, to_gallery: Tensor, power: int, size: int) -> Iterator[Tensor]:
    """Yield powers of images' distances to all, each image's divided by its largest.

    Args:
        to_query: Distances of the queries to the images, [Q, n].
        to_gallery: Distances of the gallery to the images, [G, n].
        power: Exponent of the distances.
        size: Number of images at a time.

    Yields:
        The rows of `size` images, [size, Q + G]; at the end those of the rest.
    """
    for parts in zip(to_query.split(size, 1), to_gallery.split(size, 1), strict=True):
        rows = torch.cat(parts).T.contiguous().pow_(power)
        yield rows.div_(rows.amax(1, keepdim=True).clamp(min=tiny(rows)))


def check_neighbours(k1: int, k2: int) -> None:
    """Reject numbers of neighbours below 1."""
    if k1 < 1 or k2 < 1:
        raise UserError(f"k1 and k2 are 1 or more, got k1={k1}, k2={k2}")


def check_share(lambda_value: float) -> None:
    """Reject a share that is not in [0, 1]."""
    if not 0 <= lambda_value <= 1:
        raise UserError(f"lambda_value is between 0 and 1, got lambda_value={lambda_value}")


def _check(query_query: Tensor, query_gallery: Tensor, gallery_gallery: Tensor) -> None:
    sides = (query_query, query_gallery, gallery_gallery)
    shapes = [list(side.shape) for side in sides]
    if query_gallery.dim() != 2 or not query_gallery.numel():
        raise UserError(f"query_gallery is [Q, G] with some of each, got {shapes[1]}")
    queries, images = shapes[1]
    if shapes[0] != [queries, queries] or shapes[2] != [images, images]:
        raise UserError(
            f"for query_gallery {shapes[1]}, query_query is {[queries, queries]} and "
            f"gallery_gallery {[images, images]}, got {shapes[0]} and {shapes[2]}"
        )
    if not all(bound.isfinite() for side in sides for bound in side.aminmax()):
        raise UserError("distances hold values that are not finite; look at the embeddings")
