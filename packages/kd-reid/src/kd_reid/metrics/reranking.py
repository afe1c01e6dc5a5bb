"""Re-ranking by the neighbours that query and gallery images share."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import torch
from kd_core.errors import UserError
from kd_core.functional import full_precision
from torch import Tensor

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
    largest. Beside its arguments it needs about three times the memory of `query_gallery`.

    torchreid passes squared distances to that code, so its published numbers use the fourth power;
    `squared_twice` reproduces them.

    Args:
        query_query: Plain distances, not squared, [Q, Q]; roots of `squared_euclidean`.
        query_gallery: The same, [Q, G].
        gallery_gallery: The same, [G, G].
        k1: Number of nearest images that reciprocal neighbours are sought among.
        k2: Number of nearest images, the image included, that its encoding is averaged over.
        lambda_value: Share of the distances in the mixture; the rest is the Jaccard distances'.
        squared_twice: Take the fourth power of the distances instead of the second.

    Returns:
        [Q, G], between 0 and 1.

    Raises:
        UserError: If shapes do not fit, a distance is not finite, or a number is out of range.
    """
    _check(query_query, query_gallery, gallery_gallery)
    _check_neighbours(k1, k2)
    if not 0 <= lambda_value <= 1:
        raise UserError(f"lambda_value is between 0 and 1, got lambda_value={lambda_value}")
    queries, total = len(query_query), sum(query_gallery.shape)
    size, power = max(CHUNK // total, 1), 4 if squared_twice else 2
    halves = (query_query, query_gallery.T), (query_gallery, gallery_gallery)

    def chunks() -> Iterator[Tensor]:  # computed again each time, since all chunks need much memory
        return chain.from_iterable(_relative(*half, power, size) for half in halves)

    mixture = _jaccard(_encodings(chunks, total, k1, k2), queries, total - queries)
    for mixed, rows in zip(mixture.split(size), _relative(*halves[0], power, size), strict=True):
        mixed.lerp_(rows[:, queries:], lambda_value)
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
    _check_neighbours(k1, k2)
    total = len(distance)

    def chunks() -> Iterator[Tensor]:
        return _relative(distance[:0], distance, 2, max(CHUNK // total, 1))

    return _jaccard(_encodings(chunks, total, k1, k2), total, total).clamp_(0, 1)


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
        yield rows.div_(rows.amax(1, keepdim=True).clamp(min=_tiny(rows)))


def _encodings(chunks: Callable[[], Iterable[Tensor]], total: int, k1: int, k2: int) -> Tensor:
    """Return each image's averaged weights on its neighbours, sparse [total, total].

    Args:
        chunks: Yields all rows of relative distances, some at a time.
        total: Number of images.
        k1: See `rerank`.
        k2: See `rerank`.
    """
    count = min(max(k1 + 1, k2), total)
    neighbours = torch.cat([rows.topk(count, largest=False).indices for rows in chunks()])
    encoding = _encode(chunks(), neighbours, k1)
    return _average(encoding, neighbours[:, :k2]) if k2 > 1 else encoding


def _encode(chunks: Iterable[Tensor], neighbours: Tensor, k1: int) -> Tensor:
    """Return each image's weights on its reciprocal neighbours, sparse [N, N].

    A reciprocal neighbour adds its own reciprocal neighbours (of half the number), if the image has
    more than two thirds of these already.
    """
    total = len(neighbours)
    near, half = neighbours[:, : k1 + 1], neighbours[:, : round(k1 / 2) + 1]
    mutual, half_mutual = _reciprocal(near), _reciprocal(half)
    indices, values, start = [], [], 0
    for rows in chunks:
        here = slice(start, start + len(rows))
        images = _expand(mutual[here], half_mutual[near[here]], total)
        new = (images < total) & (images.diff(prepend=images.new_full((len(rows), 1), -1)) > 0)
        weights = rows.gather(1, images.clamp(max=total - 1)).neg_().exp_().mul_(new)
        weights.div_(weights.sum(1, keepdim=True).clamp(min=_tiny(weights)))
        indices.append(torch.stack([new.nonzero()[:, 0] + start, images[new]]))
        values.append(weights[new])
        start += len(rows)
    return _sparse(torch.cat(indices, 1), torch.cat(values), total)


def _expand(mutual: Tensor, friends: Tensor, total: int) -> Tensor:
    """Return reciprocal neighbours and those that they add, sorted, some of them repeated.

    Args:
        mutual: Reciprocal neighbours of some images, [n, k]; `total` stands for none.
        friends: Reciprocal neighbours of their neighbours, [n, k, h]; likewise.
        total: Number of all images.
    """
    known = torch.zeros(len(mutual), total + 1, dtype=torch.bool, device=mutual.device)
    known.scatter_(1, mutual, True)[:, total] = False
    shared = known.gather(1, friends.flatten(1)).view_as(friends).sum(2)
    accepted = (mutual < total) & (3 * shared > 2 * (friends < total).sum(2))
    brought = friends.masked_fill(~accepted[:, :, None], total)
    return torch.cat([mutual, brought.flatten(1)], 1).sort(1).values


def _reciprocal(neighbours: Tensor) -> Tensor:
    """Return the nearest images [N, k], those without the image among their own nearest as N."""
    total = len(neighbours)
    image = torch.arange(total, device=neighbours.device)[:, None, None]
    return neighbours.masked_fill(~(neighbours[neighbours] == image).any(2), total)


def _average(encoding: Tensor, neighbours: Tensor) -> Tensor:
    """Return the mean encoding, sparse [N, N], of each image's neighbours [N, k]."""
    total, k = neighbours.shape
    image = torch.arange(total, device=neighbours.device).repeat_interleave(k)
    share = encoding.values().new_full((total * k,), 1 / k)
    shares = _sparse(torch.stack([image, neighbours.flatten()]), share, total)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sparse CSR tensors, which are used here
        return torch.sparse.mm(shares, encoding).coalesce()


def _jaccard(encoding: Tensor, queries: int, images: int) -> Tensor:
    """Return Jaccard distances of sparse encodings [N, N] whose rows sum to one.

    Few images have a weight on the same neighbour, so the gallery is indexed by neighbours.

    Args:
        encoding: Of all images.
        queries: Number of queries; they come first.
        images: Number of gallery images; they come last, and may be queries too.

    Returns:
        [queries, images].
    """
    (image, neighbour), weight = encoding.indices(), encoding.values()
    before = len(encoding) - images  # how many are not of the gallery
    own, theirs = image < queries, image >= before
    order = neighbour[theirs].argsort(stable=True)
    gallery, other = image[theirs][order] - before, weight[theirs][order]
    sharing = neighbour[theirs].bincount(minlength=len(encoding))  # gallery images, by neighbour
    first = sharing.cumsum(0) - sharing  # where these start in the ordered gallery
    intersection = weight.new_zeros(queries * images)
    entries = image[own] * images, weight[own], first[neighbour[own]], sharing[neighbour[own]]
    counts = ((entries[3].cumsum(0) - entries[3]) // CHUNK).bincount().tolist()
    for row, mine, start, times in zip(*(e.split(counts) for e in entries), strict=True):
        found = (start - times.cumsum(0) + times).repeat_interleave(times)
        found += torch.arange(len(found), device=found.device)
        smaller = torch.minimum(mine.repeat_interleave(times), other[found])
        intersection.index_add_(0, row.repeat_interleave(times) + gallery[found], smaller)
    intersection = intersection.view(queries, images)
    return 1 - intersection.div_(2 - intersection)


def _sparse(indices: Tensor, values: Tensor, total: int) -> Tensor:
    """Return a sparse matrix [total, total]."""
    shape = (total, total)
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False).coalesce()


def _tiny(values: Tensor) -> float:
    return torch.finfo(values.dtype).tiny


def _check_neighbours(k1: int, k2: int) -> None:
    if k1 < 1 or k2 < 1:
        raise UserError(f"k1 and k2 are 1 or more, got k1={k1}, k2={k2}")


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
