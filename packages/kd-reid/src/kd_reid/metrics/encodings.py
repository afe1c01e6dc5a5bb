"""What images have as their neighbours, sparse, and how much of that two images share."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

ROWS = 4096  # images at a time, about 5 kB each


def encodings(chunks: Callable[[], Iterable[Tensor]], total: int, k1: int, k2: int) -> Tensor:
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
    mutual, half_mutual = _reciprocal(near), _reciprocal(half)  # [N, k] each
    indices, values, start = [], [], 0
    for rows in chunks:
        here = slice(start, start + len(rows))
        images = _expand(mutual[here], half_mutual[near[here]], total)
        new = (images < total) & (images.diff(prepend=images.new_full((len(rows), 1), -1)) > 0)
        weights = rows.gather(1, images.clamp(max=total - 1)).neg_().exp_().mul_(new)
        weights.div_(weights.sum(1, keepdim=True).clamp(min=tiny(weights)))
        indices.append(torch.stack([new.nonzero()[:, 0] + start, images[new]]))
        values.append(weights[new])
        start += len(rows)
    return _joined(indices, values, total)


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
    total, found, start = len(neighbours), [], 0
    for rows in neighbours.split(ROWS):
        image = torch.arange(start, start + len(rows), device=rows.device)[:, None, None]
        found.append(rows.masked_fill(~(neighbours[rows] == image).any(2), total))
        start += len(rows)
    return torch.cat(found)


def _average(encoding: Tensor, neighbours: Tensor) -> Tensor:
    """Return the mean encoding, sparse [N, N], of each image's neighbours [N, k]."""
    total, k = neighbours.shape
    indices, values, start = [], [], 0
    for rows in neighbours.split(ROWS):
        image = torch.arange(len(rows), device=rows.device).repeat_interleave(k)
        share = encoding.values().new_full((len(image),), 1 / k)
        shares = _sparse(torch.stack([image, rows.flatten()]), share, (len(rows), total))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sparse CSR tensors, which are used here
            mean = torch.sparse.mm(shares, encoding).coalesce()
        indices.append(mean.indices() + mean.indices().new_tensor([[start], [0]]))
        values.append(mean.values())
        start += len(rows)
    return _joined(indices, values, total)


def _joined(indices: list[Tensor], values: list[Tensor], total: int) -> Tensor:
    """Return a sparse matrix [total, total] of parts whose indices are in order already."""
    shape, whole = (total, total), torch.cat(indices, 1)
    indices.clear()
    return torch.sparse_coo_tensor(
        whole, torch.cat(values), shape, check_invariants=False, is_coalesced=True
    )


def _sparse(indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False).coalesce()


def tiny(values: Tensor) -> float:
    """Return the smallest number that a sum may be divided by."""
    return torch.finfo(values.dtype).tiny


class Sharing:
    """Jaccard distances of sparse encodings [N, N] whose rows sum to one, some rows at a time.

    Few images have a weight on the same neighbour, so the gallery is indexed by neighbours.

    Args:
        encoding: Of all images, queries first; coalesced.
        images: Number of gallery images; they come last, and may be queries too.
        chunk: Weights that two images share, at a time.
    """

    def __init__(self, encoding: Tensor, images: int, chunk: int) -> None:
        (image, self.neighbour), self.weight = encoding.indices(), encoding.values()
        before = len(encoding) - images  # how many are not of the gallery
        self.images, self.chunk = images, chunk
        counts = image.bincount(minlength=len(encoding))
        self.ends = counts.cumsum(0)  # of the rows, among the entries
        self.starts = self.ends - counts
        first = int(self.starts[before])  # the gallery's entries are the last ones
        order = self.neighbour[first:].argsort(stable=True)
        self.gallery = image[first:][order] - before
        self.other = self.weight[first:][order]
        self.sharing = self.neighbour[first:].bincount(minlength=len(encoding))
        self.first = self.sharing.cumsum(0) - self.sharing  # where a neighbour's images start

    def distances(self, start: int, stop: int) -> Tensor:
        """Return the distances of some rows to the gallery, [stop - start, images]."""
        here = slice(int(self.starts[start]), int(self.ends[stop - 1]))
        mine, neighbour = self.weight[here], self.neighbour[here]
        counts = (self.ends - self.starts)[start:stop]
        row = torch.arange(stop - start, device=mine.device).repeat_interleave(counts)
        entries = row * self.images, mine, self.first[neighbour], self.sharing[neighbour]
        shared = mine.new_zeros((stop - start) * self.images)
        parts = ((entries[3].cumsum(0) - entries[3]) // self.chunk).bincount().tolist()
        for target, own, begin, times in zip(*(e.split(parts) for e in entries), strict=True):
            found = (begin - times.cumsum(0) + times).repeat_interleave(times)
            found += torch.arange(len(found), device=found.device)
            smaller = torch.minimum(own.repeat_interleave(times), self.other[found])
            shared.index_add_(0, target.repeat_interleave(times) + self.gallery[found], smaller)
        shared = shared.view(stop - start, self.images)
        return shared.div_(shared.neg().add_(2)).neg_().add_(1)
