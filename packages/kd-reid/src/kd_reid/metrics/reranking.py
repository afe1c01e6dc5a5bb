"""Re-ranking by the neighbours that query and gallery images share."""

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from kd_core.errors import UserError
from kd_core.functional import full_precision
from torch import Tensor

CHUNK = 2**22  # matrix entries encoded at a time


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
    arXiv:1701.08398, as the authors' code has it: distances are squared and divided by each image's
    largest. It needs about four times the memory of the largest argument.

    torchreid hands distances that are squared already to that code, so its published numbers rest
    on the fourth power; `squared_twice` is for reproducing them.

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
        UserError: If shapes do not fit, a distance is not finite, or a number is out of its range.
    """
    _check(query_query, query_gallery, gallery_gallery)
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        given = f"k1={k1}, k2={k2}, lambda_value={lambda_value}"
        raise UserError(f"k1 and k2 are 1 or more, lambda_value is between 0 and 1, got {given}")
    queries = len(query_query)
    distance = _relative(query_query, query_gallery, gallery_gallery, 4 if squared_twice else 2)
    original = distance[:queries, queries:].clone()
    neighbours = distance.topk(min(max(k1 + 1, k2), len(distance)), largest=False).indices
    encoding = _encode(distance, neighbours, k1)
    if k2 > 1:
        encoding = F.embedding_bag(neighbours[:, :k2], encoding, mode="mean")
    return _jaccard(encoding[:queries], encoding[queries:]).lerp_(original, lambda_value)


def _relative(
    query_query: Tensor, query_gallery: Tensor, gallery_gallery: Tensor, power: int
) -> Tensor:
    """Return the powers of the distances of all images, each image's divided by their largest."""
    queries = torch.cat([query_query.T, query_gallery], dim=1)
    gallery = torch.cat([query_gallery.T, gallery_gallery.T], dim=1)
    distance = torch.cat([queries, gallery]).pow_(power)
    return distance.div_(distance.amax(1, keepdim=True).clamp(min=_tiny(distance)))


def _encode(distance: Tensor, neighbours: Tensor, k1: int) -> Tensor:
    """Overwrite each image's distances [N, N] with its weights on its reciprocal neighbours.

    A reciprocal neighbour brings its own of half the number along, if the image has more than two
    thirds of these already.
    """
    near, half = neighbours[:, : k1 + 1], neighbours[:, : round(k1 / 2) + 1]
    mutual, half_mutual = _reciprocal(near), _reciprocal(half)
    size = max(CHUNK // len(distance), 1)
    chunks = zip(distance.split(size), near.split(size), mutual.split(size), strict=True)
    for rows, images, chosen in chunks:
        members = _members(images, chosen, len(distance))
        friends, valid = half[images], half_mutual[images]  # [n, k1 + 1, half + 1]
        known = members.gather(1, friends.flatten(1)).view_as(friends) & valid
        accepted = chosen & (3 * known.sum(2) > 2 * valid.sum(2))
        valid = valid & accepted[:, :, None]
        members = members | _members(friends.flatten(1), valid.flatten(1), len(distance))
        rows.neg_().exp_().mul_(members)
        rows.div_(rows.sum(1, keepdim=True).clamp(min=_tiny(rows)))
    return distance


def _reciprocal(neighbours: Tensor) -> Tensor:
    """Tell which of the nearest images [N, k] have the image among their own nearest."""
    image = torch.arange(len(neighbours), device=neighbours.device)[:, None, None]
    return (neighbours[neighbours] == image).any(2)


def _members(images: Tensor, chosen: Tensor, total: int) -> Tensor:
    """Return sets as booleans [n, total], given images [n, k] and which of them are chosen."""
    column = torch.where(chosen, images, total)  # one more column takes those not chosen
    sets = torch.zeros(len(images), total + 1, dtype=torch.bool, device=images.device)
    return sets.scatter_(1, column, True)[:, :total]


def _jaccard(query: Tensor, gallery: Tensor) -> Tensor:
    """Return the Jaccard distances of encodings [Q, N] and [G, N] whose rows sum to one.

    Only the few columns where a query's encoding is not zero count, so queries go one by one.
    """
    columns = gallery.T.contiguous()
    shared = [
        torch.minimum(row[used, None], columns[used]).sum(0)
        for row, used in ((row, row.nonzero()[:, 0]) for row in query)
    ]
    intersection = torch.stack(shared)
    return 1 - intersection / (2 - intersection)


def _tiny(values: Tensor) -> float:
    return torch.finfo(values.dtype).tiny


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
    if not all(side.isfinite().all() for side in sides):
        raise UserError("distances hold values that are not finite; look at the embeddings")
