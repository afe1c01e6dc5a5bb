"""Batches of other libraries, by the names of `Batch`."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from kd_core.errors import UserError
from kd_core.networks.task import Batch

_OURS = {"pixel_values": "image", "labels": "label"}
"""Our name of what Hugging Face's image processors and collators give."""


def by_our_names(batch: Any) -> Batch:
    """Return a batch whose images are also `image`, and whose labels are also `label`.

    Hugging Face calls them `pixel_values` and `labels`. Where a batch has both names, the tensors
    must be equal; comparing them waits for the device, so that a batch should have one of the two.

    Args:
        batch: A mapping; what is not one, such as a detector's list, is returned as it is.

    Raises:
        UserError: If a batch has both names, with different tensors.
    """
    if not isinstance(batch, Mapping):
        return cast(Batch, batch)
    found: dict[str, Any] = {
        ours: batch[theirs]
        for theirs, ours in _OURS.items()
        if isinstance(batch.get(theirs), Tensor)
    }
    for theirs, ours in _OURS.items():
        if ours in found and ours in batch and not _are_equal(batch[ours], found[ours]):
            raise UserError(
                f"the batch has {ours!r} and {theirs!r}, and they differ; leave one of them out"
            )
    return cast(Batch, {**batch, **found} if found else batch)


def _are_equal(one: Any, other: Tensor) -> bool:
    if one is other:
        return True
    if not isinstance(one, Tensor) or one.shape != other.shape:
        return False
    return torch.equal(one, other.to(one.device, one.dtype))
