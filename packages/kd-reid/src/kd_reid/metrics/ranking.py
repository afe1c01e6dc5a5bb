"""The measures of re-identification: cumulative matching characteristic and mean AP."""

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from kd_core.errors import UserError, nearest
from torch import Tensor

from kd_reid.metrics.growing import Growing
from kd_reid.metrics.labels import Labels, labels_of, left_out

APS = ("step", "trapezoid")
CHUNK = 2**22  # distances ranked at a time, about 30 bytes each


class Ranking(NamedTuple):
    """How early correct images appear; all are fractions of 1 (not percent)."""

    cmc: Tensor  # float64 [max_rank]
    means: dict[str, float]  # mean average precision, by each of `APS`
    minp: float  # mean inverse negative penalty: how early the last correct image appears


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
        query_ids: Identities [Q], whole numbers or texts; a tensor, an array or a list, as the next
            three. `"0007"`, `7` and `7.0` are one: see `labels_of`.
        gallery_ids: Identities [G].
        query_cams: Cameras [Q]; without them, no image is left out for its camera.
        gallery_cams: Cameras [G].
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
    labels = query_ids, gallery_ids, query_cams, gallery_cams
    found = _measure(distance, labels, max_rank)
    return found.cmc, found.means[ap]


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
    found = _measure(distance, (query_ids, gallery_ids, query_cams, gallery_cams), max_rank)
    return found.cmc, found.means


def _measure(distance: Any, given: tuple[Any, Any, Any, Any], max_rank: int) -> Ranking:
    distance = torch.as_tensor(distance)
    _check(distance)
    labels = labels_of(tuple(distance.shape), *given, device=distance.device)
    blocks = distance.split(max(CHUNK // distance.shape[1], 1))
    return rank_blocks(blocks, labels, max_rank, stacklevel=5)


@torch.no_grad()
def rank_blocks(
    blocks: Iterable[Tensor], labels: Labels, max_rank: int = 50, *, stacklevel: int = 3
) -> Ranking:
    """Rank distances that are never all in memory; see `evaluate_rank`.

    Args:
        blocks: Distances of some queries at a time to the whole gallery, [n, G], in order.
        labels: From `labels_of`.
        max_rank: Number of ranks of the CMC, cut to the longest list.
        stacklevel: Of the warning about queries that are left out.
    """
    if max_rank < 1:
        raise UserError(f"max_rank is 1 or more, got {max_rank}")
    columns, start = [Growing() for _ in range(5)], 0
    for block in blocks:
        here = slice(start, start + len(block))
        sides = labels.query_ids[here], labels.query_cams[here]
        found = _rank(block, *sides, labels.gallery_ids, labels.gallery_cams)
        for column, rows in zip(columns, found, strict=True):
            column.add(rows)
        start += len(block)
    first, length, inverse, *precisions = (column.joined() for column in columns)
    _report_left_out(start - len(first), start, stacklevel + 2)
    ranks = torch.arange(min(max_rank, int(length.max())), device=first.device)
    means = {name: float(values.mean()) for name, values in zip(APS, precisions, strict=True)}
    cmc = (first[:, None] <= ranks).double().mean(0)
    return Ranking(cmc, means, float(inverse.mean()))


def _rank(
    distance: Tensor,
    query_ids: Tensor,
    query_cams: Tensor,
    gallery_ids: Tensor,
    gallery_cams: Tensor,
) -> tuple[Tensor, ...]:
    """Return by query: rank of the first correct image, length of the list, INP, and both APs.

    Queries without a correct image are missing. Ranks count from 0. Removed images sort
    last, where it moves no rank.
    """
    if not all(bound.isfinite() for bound in distance.aminmax()):
        raise UserError("distance holds values that are not finite; look at the embeddings")
    same = query_ids[:, None] == gallery_ids
    removed = left_out(same, query_cams, gallery_ids, gallery_cams)
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
    last = rank[(start + count - 1)[valid]]
    inverse = count[valid].double() / (last + 1)
    return rank[start[valid]], (~removed).sum(1)[valid], inverse, step, trapezoid


def _check(distance: Tensor) -> None:
    if distance.dim() != 2 or not distance.numel() or not distance.is_floating_point():
        raise UserError(
            "distance is a matrix of floats, [queries, gallery] with some of each, "
            f"got {distance.dtype} {list(distance.shape)}"
        )


def _report_left_out(left_out: int, queries: int, stacklevel: int) -> None:
    if left_out == queries:
        raise UserError(
            f"none of {queries} queries has its identity in the gallery, seen by another camera; "
            "check identities and cameras"
        )
    if left_out:
        text = f"{left_out} of {queries} queries have no right image to find and are left out"
        warnings.warn(text, stacklevel=stacklevel)  # names the caller, not no_grad
