"""The measures of re-identification: cumulative matching characteristic and mean AP."""

import warnings
from typing import Any

import torch
from kd_core.errors import UserError, nearest
from torch import Tensor

JUNK = -1  # identity of detections that Market-1501 counts neither as correct nor as wrong
APS = ("step", "trapezoid")
CHUNK = 2**22  # distances ranked at a time, about 30 bytes each


@torch.no_grad()
def evaluate_rank(
    distance: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    max_rank: int = 50,
    ap: str = "step",
) -> tuple[Tensor, float]:
    """Rank the gallery for every query and measure how early correct images appear.

    The single-query protocol of Zheng et al., "Scalable Person Re-identification: A Benchmark",
    ICCV 2015. Gallery images of the query's identity seen by the query's camera are left out of its
    list, and junk (identity -1) out of all. Distractors (identity 0 in Market-1501) stay and are
    wrong. A query without a correct image in its list is left out of both means; a warning says how
    many.
    Images at equal distances keep the order of the gallery.

    Equal to torchreid, except that torchreid ranks junk that was not dropped on loading as wrong
    and fails if lists shorter than `max_rank` differ in length.

    Args:
        distance: [Q, G], any that grows with dissimilarity; a tensor on any device, or an array.
        query_ids: Identities, integers [Q]; a tensor, an array or a list, as the next three.
        gallery_ids: Identities, integers [G].
        query_cams: Cameras, integers [Q]; without them, no image is left out for its camera.
        gallery_cams: Cameras, integers [G].
        max_rank: Number of ranks of the CMC, cut to the longest list.
        ap: Average precision is the mean over the correct images of this value. "step": the
            precision at the image (torchreid, fast-reid). "trapezoid": the mean of the precisions
            at it and just before it (the authors' MATLAB code), never larger.

    Returns:
        CMC, float64 [max_rank], whose k-th entry is the fraction of queries with a correct image
        among the first k + 1; and mean average precision. Both fractions of 1 (not percent).

    Raises:
        UserError: If shapes do not fit, a distance is not finite, or no query has a correct image.
    """
    if ap not in APS:
        raise UserError(f"ap is one of {', '.join(APS)}, got {ap!r}{nearest(ap, APS)}")
    sides = (query_ids, gallery_ids, query_cams, gallery_cams)
    cmc, means = _measure(distance, *sides, max_rank)
    return cmc, means[ap]


@torch.no_grad()
def evaluate_rank_both(
    distance: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    max_rank: int = 50,
) -> tuple[Tensor, dict[str, float]]:
    """Rank once and return the CMC, and mean average precision by each of `APS`.

    See `evaluate_rank` for the arguments.
    """
    return _measure(distance, query_ids, gallery_ids, query_cams, gallery_cams, max_rank)


def _measure(
    distance: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any,
    gallery_cams: Any,
    max_rank: int,
) -> tuple[Tensor, dict[str, float]]:
    distance = torch.as_tensor(distance)
    _check(distance, query_cams, gallery_cams, max_rank)
    if query_cams is None:
        query_cams, gallery_cams = [0] * distance.shape[0], [1] * distance.shape[1]
    ids, cams = (
        _labels(name, distance, *sides)
        for name, *sides in (("ids", query_ids, gallery_ids), ("cams", query_cams, gallery_cams))
    )
    size = max(CHUNK // distance.shape[1], 1)
    chunks = zip(distance.split(size), ids[0].split(size), cams[0].split(size), strict=True)
    ranked = [_rank(*chunk, ids[1], cams[1]) for chunk in chunks]
    first, length, *precisions = (torch.cat(parts) for parts in zip(*ranked, strict=True))
    _report_left_out(len(distance) - len(first), len(distance))
    ranks = torch.arange(min(max_rank, int(length.max())), device=first.device)
    means = {name: float(values.mean()) for name, values in zip(APS, precisions, strict=True)}
    return (first[:, None] <= ranks).double().mean(0), means


def _rank(
    distance: Tensor,
    query_ids: Tensor,
    query_cams: Tensor,
    gallery_ids: Tensor,
    gallery_cams: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the rank of the first correct image, the length of the list and both APs, by query.

    Queries without a correct image are missing. Ranks count from 0. Removed images sort
    last, where it moves no rank.
    """
    if not all(bound.isfinite() for bound in distance.aminmax()):
        raise UserError("distance holds values that are not finite; look at the embeddings")
    same = query_ids[:, None] == gallery_ids
    removed = (same & (query_cams[:, None] == gallery_cams)) | (gallery_ids == JUNK)
    right = same & ~removed
    order = distance.masked_fill(removed, torch.inf).argsort(dim=1, stable=True)
    query, rank = right.gather(1, order).nonzero(as_tuple=True)  # query by query, ranks rising
    count = right.sum(1)
    start = count.cumsum(0) - count
    before = torch.arange(len(rank), device=rank.device) - start[query]  # correct images before
    step = (before + 1).double() / (rank + 1)
    trapezoid = (step + torch.where(rank == 0, 1, before.double() / rank)) / 2
    valid = count > 0
    step, trapezoid = (
        precision.new_zeros(len(distance)).index_add_(0, query, precision)[valid] / count[valid]
        for precision in (step, trapezoid)
    )
    return rank[start[valid]], (~removed).sum(1)[valid], step, trapezoid


def _check(distance: Tensor, query_cams: Any, gallery_cams: Any, max_rank: int) -> None:
    if distance.dim() != 2 or not distance.numel() or not distance.is_floating_point():
        raise UserError(
            "distance is a matrix of floats, [queries, gallery] with some of each, "
            f"got {distance.dtype} {list(distance.shape)}"
        )
    if (query_cams is None) != (gallery_cams is None):
        raise UserError("query_cams and gallery_cams belong together; give both or neither")
    if max_rank < 1:
        raise UserError(f"max_rank is 1 or more, got {max_rank}")


def _labels(name: str, distance: Tensor, query: Any, gallery: Any) -> tuple[Tensor, Tensor]:
    sides = [torch.as_tensor(side, device=distance.device) for side in (query, gallery)]
    shapes = [list(side.shape) for side in sides]
    if shapes != [[size] for size in distance.shape]:
        raise UserError(
            f"distance {list(distance.shape)} needs one query and gallery {name} a row and column, "
            f"got {shapes[0]} and {shapes[1]}"
        )
    return sides[0], sides[1]


def _report_left_out(left_out: int, queries: int) -> None:
    if left_out == queries:
        raise UserError(
            f"none of {queries} queries has its identity in the gallery, seen by another camera; "
            "check identities and cameras"
        )
    if left_out:
        text = f"{left_out} of {queries} queries have no right image to find and are left out"
        warnings.warn(text, stacklevel=5)  # so that the warning names the caller, not no_grad
