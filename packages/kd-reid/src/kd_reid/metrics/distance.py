"""Distances between every query and every gallery image."""

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from kd_core.errors import UserError
from kd_core.functional import full_precision
from torch import Tensor

_ROWS = 4096  # embeddings whose squares are held at a time


@full_precision
def squared_euclidean(query: Tensor, gallery: Tensor) -> Tensor:
    """Return the squared Euclidean distance of every query to every gallery image.

    torchreid's "euclidean". Differs from torchreid: values that are negative by rounding become 0,
    so that a root can be taken (`rerank` needs one).

    Args:
        query: Embeddings, [Q, D].
        gallery: Embeddings, [G, D].

    Returns:
        [Q, G], in float32 at least.

    Raises:
        UserError: If the two are not matrices with equal numbers of columns.
    """
    check_embeddings(query, gallery)
    return from_norms(query, gallery, squared_norms(query), squared_norms(gallery))


@full_precision
def squared_norms(rows: Tensor) -> Tensor:
    """Return the squared lengths of embeddings [N, D]."""
    return torch.cat([some.square().sum(1) for some in rows.split(_ROWS)])


@full_precision
def from_norms(query: Tensor, gallery: Tensor, norms: Tensor, gallery_norms: Tensor) -> Tensor:
    """Return `squared_euclidean` of embeddings whose squared lengths are known."""
    sums = norms[:, None] + gallery_norms
    return sums.addmm_(query, gallery.T, alpha=-2).clamp_(min=0)  # in the memory of the sums


@full_precision
def cosine_distance(query: Tensor, gallery: Tensor) -> Tensor:
    """Return one minus the cosine of every query [Q, D] with every gallery image [G, D].

    Half the squared Euclidean distance of the normalised embeddings. See `squared_euclidean`.
    """
    check_embeddings(query, gallery)
    return one_minus_dot(F.normalize(query), F.normalize(gallery))


@full_precision
def one_minus_dot(query: Tensor, gallery: Tensor) -> Tensor:
    """Return the cosine distance of embeddings of length 1."""
    return (query @ gallery.T).neg_().add_(1)


def check_embeddings(query: Tensor, gallery: Tensor) -> None:
    """Reject what are not matrices of one width."""
    if query.dim() != 2 or gallery.dim() != 2 or query.shape[1] != gallery.shape[1]:
        raise UserError(
            "distances need embeddings [Q, D] and [G, D] of one network, "
            f"got {list(query.shape)} and {list(gallery.shape)}"
        )
