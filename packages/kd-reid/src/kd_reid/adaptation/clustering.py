"""Pseudo-identities: clusters of images with the same nearest neighbours."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.config.values import Fraction, PositiveInt, SeveralInt, check_values
from kd_core.errors import UserError
from torch import Tensor

from kd_reid.metrics import jaccard_distance, squared_euclidean

OUTLIER = -1


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """Clusters images by DBSCAN on the Jaccard distances of their neighbours.

    Args:
        k1: Number of nearest images that reciprocal neighbours are searched for among.
        k2: Number of nearest images that an image's neighbours are averaged over.
        pair_share: Share of all pairs, the nearest ones, whose mean distance becomes the radius;
            about as many as pairs of one person.
        min_samples: Images within the radius of an image, itself included, that make it a core.

    Raises:
        UserError: If a number is out of range.
    """

    k1: PositiveInt = 20
    k2: PositiveInt = 6
    pair_share: Fraction = 1.6e-3
    min_samples: SeveralInt = 4

    def __post_init__(self) -> None:
        check_values(Clustering, vars(self), str)

    def distance(self, features: Tensor) -> Tensor:
        """Return the Jaccard distances [N, N] of features [N, D], whatever their length."""
        rows = F.normalize(features)
        return jaccard_distance(squared_euclidean(rows, rows).sqrt_(), k1=self.k1, k2=self.k2)

    def radius(self, distance: Tensor) -> float:
        """Return the mean of the smallest distances [N, N] of pairs, leaving out those of 0.

        Raises:
            UserError: If all are 0.
        """
        pairs = distance[torch.ones_like(distance, dtype=torch.bool).triu_(1)]
        pairs = pairs[pairs > 0]
        if not len(pairs):
            raise UserError(
                "all images have the same neighbours, so no radius separates them; look at the "
                "embeddings, or lower adaptation.k1"
            )
        count = max(round(self.pair_share * len(pairs)), 1)
        return float(pairs.topk(count, largest=False, sorted=False).values.double().mean())

    def labels(self, distance: Tensor, radius: float) -> Tensor:
        """Number the clusters from 0: int64 [N] on the host; `OUTLIER` is in none.

        There are at most half as many clusters as images: each cluster has a core with other images
        around it.

        Args:
            distance: [N, N].
            radius: In its unit.

        Raises:
            UserError: If there is no cluster, or scikit-learn is missing.
        """
        found = torch.from_numpy(_dbscan()(
            eps=radius, min_samples=self.min_samples, metric="precomputed"
        ).fit_predict(distance.cpu().numpy())).long()  # fmt: skip
        if not bool((found != OUTLIER).any()):
            raise UserError(
                f"no cluster among {len(found)} images: none has {self.min_samples - 1} others "
                f"within a Jaccard distance of {radius:.4f}; raise adaptation.pair_share, or lower "
                "adaptation.min_samples"
            )
        return found


def centroids(features: Tensor, label: Tensor) -> Tensor:
    """Return the normalised mean feature of each cluster, [clusters, D].

    Args:
        features: [N, D].
        label: Clusters, int64 [N] from 0; outliers do not count.
    """
    label = label.to(features.device)
    kept = label != OUTLIER
    sums = features.new_zeros(int(label.max()) + 1, features.shape[1])
    return F.normalize(sums.index_add_(0, label[kept], features[kept]))


def _dbscan() -> type:
    try:
        from sklearn.cluster import DBSCAN
    except ImportError as error:
        raise UserError(
            "adaptation needs scikit-learn for DBSCAN; pip install 'kd-reid[adapt]'"
        ) from error
    return DBSCAN
