"""What images have as their neighbours, sparse, and how much of that two images share."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kd_reid.metrics.growing import Growing

ROWS = 4096  # images at a time, about 5 kB each
_SHARE = 64  # weights for each of them that are averaged at a time, about 50 bytes each


class Weights(NamedTuple):
    """Every image's weights on its neighbours, one image after the other: 8 bytes a weight.

    Attributes:
        counts: How many each image has, int64 [N].
        neighbour: Of each weight, rising within an image, int32 [W].
        weight: [W].
    """

    counts: Tensor
    neighbour: Tensor
    weight: Tensor

    @property
    def starts(self) -> Tensor:
        """Return where the weights of each image begin, int64 [N]."""
        return self.counts.cumsum(0) - self.counts


def encodings(chunks: Callable[[], Iterable[Tensor]], total: int, k1: int, k2: int) -> Weights:
    """Return each image's averaged weights on its neighbours.

    Args:
        chunks: Yields all rows of relative distances, some at a time.
        total: Number of images.
        k1: See `rerank`.
        k2: See `rerank`.
    """
    count = min(max(k1 + 1, k2), total)
    found = Growing()
    for rows in chunks():
        found.add(rows.topk(count, largest=False).indices)
    neighbours = found.joined()
    encoding = _encode(chunks(), neighbours, k1)
    return _average(encoding, neighbours[:, :k2]) if k2 > 1 else encoding


def _encode(chunks: Iterable[Tensor], neighbours: Tensor, k1: int) -> Weights:
    """Return each image's weights on its reciprocal neighbours.

    A reciprocal neighbour adds its own reciprocal neighbours (of half the number), if the image has
    more than two thirds of these already.
    """
    total = len(neighbours)
    near, half = neighbours[:, : k1 + 1], neighbours[:, : round(k1 / 2) + 1]
    mutual, half_mutual = _reciprocal(near), _reciprocal(half)  # [N, k] each
    parts, start = _Parts(), 0
    for rows in chunks:
        here = slice(start, start + len(rows))
        images = _expand(mutual[here], half_mutual[near[here]], total)
        new = (images < total) & (images.diff(prepend=images.new_full((len(rows), 1), -1)) > 0)
        weights = rows.gather(1, images.clamp(max=total - 1)).neg_().exp_().mul_(new)
        weights.div_(weights.sum(1, keepdim=True).clamp(min=tiny(weights)))
        parts.add(new.sum(1), images[new].int(), weights[new])
        start += len(rows)
    return parts.joined()


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


def _average(encoding: Weights, neighbours: Tensor) -> Weights:
    """Return the mean weights of each image's neighbours [N, k]."""
    total, k = neighbours.shape
    counts, starts = encoding.counts[neighbours], encoding.starts
    parts, sizes = _Parts(), _groups(counts.sum(1), _SHARE * ROWS)
    for images, each in zip(neighbours.split(sizes), counts.split(sizes), strict=True):
        found = _places(starts[images.flatten()], each.flatten())
        row = torch.arange(len(images), device=found.device).repeat_interleave(each.sum(1))
        key = row.mul_(total).add_(encoding.neighbour[found])
        keys, place = key.unique(return_inverse=True)  # sorted
        mean = encoding.weight.new_zeros(len(keys))
        mean.index_add_(0, place, encoding.weight[found] / k)
        rows = keys.div(total, rounding_mode="floor")
        parts.add(rows.bincount(minlength=len(images)), (keys % total).int(), mean)
    return parts.joined()


class _Parts:
    """Weights of some images after the other."""

    def __init__(self) -> None:
        self._columns = Growing(), Growing(), Growing()

    def add(self, *columns: Tensor) -> None:
        """Take what `Weights` has, of further images."""
        for all_rows, rows in zip(self._columns, columns, strict=True):
            all_rows.add(rows)

    def joined(self) -> Weights:
        """Return the weights of all images."""
        return Weights(*(column.joined() for column in self._columns))


def _places(begin: Tensor, times: Tensor) -> Tensor:
    """Return for each i the numbers from `begin[i]` on, `times[i]` of them, in one row."""
    found = (begin - times.cumsum(0) + times).repeat_interleave(times)
    return found.add_(torch.arange(len(found), device=found.device))


def _groups(sizes: Tensor, most: int) -> Sequence[int]:
    """Return how many of some things, in order, are in groups whose sizes add up to about `most`.

    A group may have one more thing than fits.
    """
    return ((sizes.cumsum(0) - sizes) // most).bincount().tolist()


def tiny(values: Tensor) -> float:
    """Return the smallest number that a sum may be divided by."""
    return torch.finfo(values.dtype).tiny


class Sharing:
    """Jaccard distances of encodings whose rows sum to one, some rows at a time.

    Few images have a weight on the same neighbour, so the gallery is indexed by neighbours.

    Args:
        encoding: Of all images, queries first.
        images: Number of gallery images; they come last, and may be queries too.
        chunk: Weights that two images share, at a time.
    """

    def __init__(self, encoding: Weights, images: int, chunk: int) -> None:
        total = len(encoding.counts)
        before = total - images  # how many are not of the gallery
        self.images, self.chunk, self.starts = images, chunk, encoding.starts
        self.counts, first = encoding.counts, int(self.starts[before])
        # The gallery's own weights are needed in the order of neighbours alone, if it is apart.
        asked = slice(0, first) if before else slice(None)
        self.neighbour, self.weight = encoding.neighbour[asked], encoding.weight[asked]
        if before:
            self.neighbour, self.weight = self.neighbour.clone(), self.weight.clone()
        own = encoding.neighbour[first:]
        order = own.argsort(stable=True)
        image = torch.arange(images, dtype=torch.int32, device=own.device)
        self.gallery = image.repeat_interleave(self.counts[before:])[order]
        self.other = encoding.weight[first:][order]
        self.sharing = own.bincount(minlength=total)
        self.first = self.sharing.cumsum(0) - self.sharing  # where a neighbour's images start

    def distances(self, start: int, stop: int) -> Tensor:
        """Return the distances of some rows to the gallery, [stop - start, images]."""
        counts = self.counts[start:stop]
        begin = int(self.starts[start])
        here = slice(begin, begin + int(counts.sum()))
        mine, neighbour = self.weight[here], self.neighbour[here]
        row = torch.arange(stop - start, device=mine.device).repeat_interleave(counts)
        entries = row * self.images, mine, self.first[neighbour], self.sharing[neighbour]
        shared = mine.new_zeros((stop - start) * self.images)
        parts = _groups(entries[3], self.chunk)
        for target, own, places, times in zip(*(e.split(parts) for e in entries), strict=True):
            found = _places(places, times)
            smaller = torch.minimum(own.repeat_interleave(times), self.other[found])
            shared.index_add_(0, target.repeat_interleave(times) + self.gallery[found], smaller)
        shared = shared.view(stop - start, self.images)
        return shared.div_(shared.neg().add_(2)).neg_().add_(1)
