"""Losses of adaptation, where labels are clusters and may be wrong."""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.functional import batch_mean, full_precision
from torch import Tensor

_SAME = 1e-5  # a cosine this near to 1 is that of an image with itself


@full_precision
def multi_similarity(
    embedding: Tensor,
    label: Tensor,
    *,
    positive_scale: float = 2.0,
    negative_scale: float = 40.0,
    threshold: float = 0.5,
    margin: float = 0.1,
) -> Tensor:
    """Attract images of an identity and repel others, hard pairs most.

    Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning",
    CVPR 2019, arXiv:1904.06627. Of cosines s, an anchor keeps the negatives with s + margin above
    its least similar positive, and the positives with s - margin below its most similar negative:
    some of both, or none. The loss is the mean over anchors of
    log(1 + sum_p exp(-a (s - t))) / a + log(1 + sum_n exp(b (s - t))) / b.

    Args:
        embedding: [N, D], of any length.
        label: Identities, int64 [N].
        positive_scale: a.
        negative_scale: b.
        threshold: t, a cosine.
        margin: Of the choice of pairs, a difference of cosines.
    """
    rows = F.normalize(embedding)
    cosine = rows @ rows.T
    if not len(label):
        return cosine.sum()
    same = label[:, None] == label
    positive, negative = same & (cosine < 1 - _SAME), ~same
    worst = cosine.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
    nearest = cosine.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
    pulled, pushed = positive & (cosine - margin < nearest), negative & (cosine + margin > worst)
    # Not exp(...) * mask: masked values must not overflow.
    pull = (-positive_scale * (cosine - threshold)).masked_fill(~pulled, -torch.inf).exp().sum(1)
    push = (negative_scale * (cosine - threshold)).masked_fill(~pushed, -torch.inf).exp().sum(1)
    losses = pull.log1p() / positive_scale + push.log1p() / negative_scale
    return batch_mean(losses)


@full_precision
def batch_nuclear_norm(logits: Tensor) -> Tensor:
    """Return minus the nuclear norm of the batch's probabilities [N, C], over N.

    Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label
    Insufficient Situations", CVPR 2020, arXiv:2003.12237: it is smallest where predictions are
    confident and differ from one another.

    Args:
        logits: [N, C].
    """
    return -torch.linalg.svdvals(logits.softmax(1)).sum() / max(len(logits), 1)
