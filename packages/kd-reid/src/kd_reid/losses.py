"""Losses on embeddings and identities; those of pytorch-metric-learning work too."""

import torch
from kd_core.config.values import NonNegative, checked
from kd_core.functional import full_precision
from torch import Tensor, nn


class BatchHardTriplet(nn.Module):
    """Triplet loss with the hardest positive and the hardest negative of every image in the batch.

    Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", arXiv:1703.07737.
    It needs batches with several images of each identity, see `instances` of the data. With several
    GPUs, each searches its own part of the batch.

    Args:
        margin: How much farther away the negative should be, in units of the embedding.
    """

    @checked
    def __init__(self, margin: NonNegative = 0.3) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss of embeddings [N, D] with identities int64 [N]."""
        return batch_hard_triplet(embedding, label, margin=self.margin)


@full_precision
def batch_hard_triplet(embedding: Tensor, label: Tensor, *, margin: float = 0.3) -> Tensor:
    """Return mean_i max(0, max_p |x_i - x_p| - min_n |x_i - x_n| + margin).

    Equal to torchreid's: an image is among its own positives. An image without negatives in the
    batch has loss 0.

    Args:
        embedding: [N, D].
        label: Identities, int64 [N].
        margin: See `BatchHardTriplet`.
    """
    squares = embedding.square().sum(1)
    squared = squares[:, None] + squares - 2 * embedding @ embedding.T
    distance = squared.clamp(min=1e-12).sqrt()
    same = label[:, None] == label
    if not len(label):
        return embedding.sum()
    positive = distance.masked_fill(~same, -torch.inf).amax(1)
    negative = distance.masked_fill(same, torch.inf).amin(1)
    return (positive - negative + margin).clamp(min=0).mean()
