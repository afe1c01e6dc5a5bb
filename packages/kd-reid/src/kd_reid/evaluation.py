"""Evaluate embedders: how early correct images appear in the ranked gallery."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, cast

import torch
from kd_core.config.values import check_values
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError
from kd_core.networks.image_task import ImageTask
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from torch import Tensor, nn

from kd_reid.data.records import Record
from kd_reid.data.splits import People
from kd_reid.metrics import Distances, labels_of, rank_blocks, squared_euclidean, tpr_at_fpr
from kd_reid.metrics.blocks import in_words
from kd_reid.metrics.distance import cosine_distance
from kd_reid.metrics.labels import Labels
from kd_reid.metrics.verification import Accepted

DISTANCES = {"euclidean": squared_euclidean, "cosine": cosine_distance}
_RANKS = (1, 5, 10, 20)

Watch = Callable[[Iterable[Batch], int], Iterable[Batch]]
"""Yields the batches that it is given, and shows how many of so many there were."""


class Listed(Protocol):
    """Images whose identities and cameras are known."""

    records: list[Record]


class Searched(Protocol):
    """Data with images to search for, and to search in."""

    @property
    def query(self) -> Listed:
        """Images to search for."""

    @property
    def gallery(self) -> Listed:
        """Images to search in."""


class Opened(Protocol):
    """The same, with the loaders of their pixels."""

    @property
    def query(self) -> People:
        """Images to search for."""

    @property
    def gallery(self) -> People:
        """Images to search in."""


class Features(NamedTuple):
    """The embeddings of query and gallery."""

    query: Tensor  # [Q, D]
    gallery: Tensor  # [G, D]


@dataclass
class Evaluation:
    """The evaluation, a config's `evaluation` node. Called with a model, it returns metrics.

    Metrics are percentages: `rank1` to `rank20`, `mAP` (precision at each correct image, as in
    torchreid), `mAP_trapezoid` (as in Market-1501's own code) and `mINP` (how early the last
    correct image appears, Ye et al., arXiv:2001.04193). Features are computed once for all metrics,
    and distances some queries at a time, so a set of any size needs little more than its features.

    Args:
        data: Has query and gallery.
        distance: "euclidean", torchreid's, which is squared, or "cosine", for networks with a neck.
        reranking: Also return `reranked_rank1` and so on, after k-reciprocal re-ranking.
        squared_twice: Re-rank squares of squared distances, as torchreid's published numbers do.
        flip: Take the mean embedding of every image and its mirror image.
        fpr: False positive rates, such as 0.001: also return `TPR@FPR=0.001`, the percentage of
            right pairs that are nearer than `threshold@FPR=0.001`, a distance.

    Raises:
        UserError: If there is no such distance, or a rate is not above 0 and below 1.
    """

    data: Searched
    distance: Literal["euclidean", "cosine"] = "euclidean"
    reranking: bool = False
    squared_twice: bool = False
    flip: bool = False
    fpr: Sequence[float] = ()

    def __post_init__(self) -> None:
        check_values(Evaluation, vars(self), lambda name: f"evaluation.{name}")
        if wrong := [rate for rate in self.fpr if not 0 < rate < 1]:
            raise UserError(f"evaluation.fpr: wanted rates above 0 and below 1, got {wrong[0]}")
        if self.squared_twice and not self.reranking:
            raise UserError("evaluation.squared_twice is of re-ranking; set reranking=True too")

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Measure a model."""
        return self.measure(extract(model, cast(Opened, self.data), flip=self.flip))

    def measure(self, features: Features) -> dict[str, float]:
        """Measure features of `extract`."""
        distances = Distances(*features, self.distance)
        labels = labels_in(self.data, features.query.device)
        found = _scores(distances.blocks(), labels)
        for rate, pairs in zip(self.fpr, self._accepted(distances, labels), strict=True):
            found[f"TPR@FPR={rate:g}"] = round(100 * pairs.tpr, 4)
            found[f"threshold@FPR={rate:g}"] = pairs.threshold
        if self.reranking:
            better = distances.reranked(squared_twice=self.squared_twice, announce=self._announce)
            found |= {f"reranked_{k}": value for k, value in _scores(better, labels).items()}
        return found

    def distances(self, features: Features) -> Tensor:
        """Return the distance of every query to every gallery image, [Q, G], in one matrix."""
        return DISTANCES[self.distance](*features)

    def _accepted(self, distances: Distances, labels: Labels) -> list[Accepted]:
        return tpr_at_fpr(distances.blocks, labels, self.fpr) if self.fpr else []

    def _announce(self, seconds: float) -> None:
        images = len(self.data.query.records) + len(self.data.gallery.records)
        distributed.print_note(f"re-ranking {images:,} images takes about {in_words(seconds)}")


def _scores(blocks: Iterable[Tensor], labels: Labels) -> dict[str, float]:
    found = rank_blocks(blocks, labels, max_rank=_RANKS[-1])
    cmc = found.cmc.tolist()
    scores = {f"rank{rank}": cmc[min(rank, len(cmc)) - 1] for rank in _RANKS}
    scores |= {"mAP": found.means["step"], "mAP_trapezoid": found.means["trapezoid"]}
    scores["mINP"] = found.minp
    return {name: round(100 * value, 4) for name, value in scores.items()}


def labels_in(data: Searched, device: torch.device | str = "cpu") -> Labels:
    """Return identities and cameras of both sides; cameras count only if all are known."""
    sides = data.query.records, data.gallery.records
    ids = [[record.identity for record in side] for side in sides]
    cams = [[record.camera for record in side] for side in sides]
    known = all(camera is not None for side in cams for camera in side)
    shape = len(ids[0]), len(ids[1])
    return labels_of(shape, *ids, *(cams if known else (None, None)), device=device)


@torch.no_grad()
def extract(model: nn.Module, data: Opened, *, flip: bool = False) -> Features:
    """Return the embeddings of all images of query and gallery, in every process.

    Args:
        model: Returns an `Embedding` for a batch.
        data: Has the images.
        flip: Take the mean embedding of every image and its mirror image.
    """
    model.eval()
    return Features(
        *(embeddings(model, part.loader, flip=flip) for part in (data.query, data.gallery))
    )


@torch.no_grad()
def embeddings(
    model: nn.Module, loader: SplitLoader, *, flip: bool = False, watch: Watch | None = None
) -> Tensor:
    """Return the embeddings of all images of a loader, [N, D], in every process.

    Args:
        model: In evaluation mode; returns an `Embedding` for a batch.
        loader: Of images in their order.
        flip: Take the mean embedding of every image and its mirror image.
        watch: Gets the batches and their number, and yields them: shows how far it is.
    """
    loader = distributed.shard(loader)
    batches = loader.epoch(0)
    places, rows = [], []
    for batch in batches if watch is None else watch(batches, len(loader)):
        if len(batch["index"]):
            if isinstance(model, ImageTask):
                model.check_sample(batch)
            found = model(batch).embedding.float()
            if flip:
                mirrored = model({**batch, "image": batch["image"].flip(-1)}).embedding
                found = (found + mirrored.float()) / 2
            rows.append(found)
            places.append(batch["index"])
    gathered = distributed.gather_rows(torch.cat(rows))
    place = distributed.gather_rows(torch.cat(places))
    ordered = torch.empty_like(gathered)
    ordered[place] = gathered  # each process had its part of the batches
    return ordered
