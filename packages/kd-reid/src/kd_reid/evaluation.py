"""Evaluate embedders: how early correct images appear in the ranked gallery."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from kd_core.config.values import check_values
from kd_core.data.split_loader import SplitLoader
from kd_core.runtime import distributed
from torch import Tensor, nn

from kd_reid.data.splits import DataSplits, People
from kd_reid.metrics import evaluate_rank_both, rerank, squared_euclidean
from kd_reid.metrics.distance import cosine_distance

DISTANCES = {"euclidean": squared_euclidean, "cosine": cosine_distance}
_RANKS = (1, 5, 10, 20)


class Features(NamedTuple):
    """The embeddings of query and gallery."""

    query: Tensor  # [Q, D]
    gallery: Tensor  # [G, D]


@dataclass
class Evaluation:
    """The evaluation, a config's `evaluation` node. Called with a model, it returns metrics.

    Metrics are percentages: `rank1` to `rank20`, `mAP` (precision at each correct image, as in
    torchreid) and `mAP_trapezoid` (as in Market-1501's own code). Features are computed once for
    all metrics. The distances are one matrix: 4 GB for MSMT17, and 27 GB more with re-ranking.

    Args:
        data: Has query and gallery.
        distance: "euclidean", torchreid's, or "cosine", for networks with a neck.
        reranking: Also return `reranked_rank1` and so on, after k-reciprocal re-ranking.
        squared_twice: Re-rank squares of squared distances, as torchreid's published numbers do.

    Raises:
        UserError: If there is no such distance.
    """

    data: DataSplits
    distance: Literal["euclidean", "cosine"] = "euclidean"
    reranking: bool = False
    squared_twice: bool = False

    def __post_init__(self) -> None:
        check_values(Evaluation, vars(self), lambda name: f"evaluation.{name}")

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Measure a model."""
        return self.measure(extract(model, self.data))

    def measure(self, features: Features) -> dict[str, float]:
        """Measure features of `extract`."""
        found = self._scores(self.distances(features))
        if self.reranking:
            better = rerank(*self._plain_distances(features), squared_twice=self.squared_twice)
            scores = self._scores(better)
            found |= {f"reranked_{name}": value for name, value in scores.items()}
        return found

    def distances(self, features: Features) -> Tensor:
        """Return the distance of every query to every gallery image, [Q, G]."""
        return DISTANCES[self.distance](*features)

    def _plain_distances(self, features: Features) -> Iterator[Tensor]:
        # For normalised features, 1 - cos is half the square of the Euclidean distance.
        query, gallery = features
        for pair in ((query, query), (query, gallery), (gallery, gallery)):
            yield DISTANCES[self.distance](*pair).clamp_(min=0).sqrt_()

    def _scores(self, distance: Tensor) -> dict[str, float]:
        sides = numbered(self.data, distance.device)
        arguments = (sides.query_ids, sides.gallery_ids, sides.query_cameras, sides.gallery_cameras)
        cmc, means = evaluate_rank_both(distance, *arguments, max_rank=_RANKS[-1])
        scores = {f"rank{rank}": float(cmc[min(rank, len(cmc)) - 1]) for rank in _RANKS}
        scores |= {"mAP": means["step"], "mAP_trapezoid": means["trapezoid"]}
        return {name: round(100 * value, 4) for name, value in scores.items()}


class Numbered(NamedTuple):
    """Identities and cameras as numbers; cameras are None where they are not known."""

    query_ids: Tensor
    gallery_ids: Tensor
    query_cameras: Tensor | None
    gallery_cameras: Tensor | None


def numbered(data: DataSplits, device: torch.device) -> Numbered:
    """Number the identities and cameras of both sides of a search."""
    query, gallery = data.query.records, data.gallery.records
    ids = _numbers([r.identity for r in query], [r.identity for r in gallery], device)
    seen = [record.camera or "" for record in (*query, *gallery)]
    if any(record.camera is None for record in (*query, *gallery)):
        return Numbered(*ids, None, None)
    return Numbered(*ids, *_numbers(seen[: len(query)], seen[len(query) :], device))


def _numbers(
    query: Sequence[str], gallery: Sequence[str], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the names of both sides as numbers, in the order of all names."""
    numbers = {name: number for number, name in enumerate(sorted({*query, *gallery}))}
    first, second = (
        torch.tensor([numbers[name] for name in side], dtype=torch.int64, device=device)
        for side in (query, gallery)
    )
    return first, second


@torch.no_grad()
def extract(model: nn.Module, data: DataSplits) -> Features:
    """Return the embeddings of all images of query and gallery, in every process."""
    model.eval()
    return Features(_rows(model, data.query), _rows(model, data.gallery))


def _rows(model: nn.Module, people: People) -> Tensor:
    loader: SplitLoader = distributed.shard(people.loader)
    places, rows = [], []
    for batch in loader.epoch(0):
        if len(batch["index"]):
            rows.append(model(batch).embedding.float())
            places.append(batch["index"])
    gathered = distributed.gather_rows(torch.cat(rows))
    place = distributed.gather_rows(torch.cat(places))
    ordered = torch.empty_like(gathered)
    ordered[place] = gathered  # each process had its part of the batches
    return ordered
