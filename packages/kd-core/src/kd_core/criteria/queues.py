"""Queues of teacher vectors that later batches are compared with: how long, and how they move."""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from kd_core.errors import UserError
from kd_core.runtime.distributed import print_note

LONGEST = 8192
"""Rows for a data set of more than 20,000 images."""

_LENGTHS = (
    *((50, 16), (100, 32), (250, 64), (500, 128), (1_000, 256), (2_000, 512)),
    *((4_000, 1_024), (10_000, 2_048), (20_000, 4_096)),
)
"""Images up to which a queue has so many rows, as in LightlyTrain."""


def suited_length(num_samples: int) -> int:
    """Return how many rows suit a data set of so many images; never more than there are images."""
    fits = (length for images, length in _LENGTHS if num_samples <= images)
    return min(next(fits, LONGEST), num_samples)


def queue_length(name: str, wanted: int | None, num_samples: int | None) -> int:
    """Return the length of a queue: what is wanted, or what suits the data set.

    Args:
        name: Of the criterion, for messages.
        wanted: Rows; None leaves the choice to `suited_length`.
        num_samples: Images of the data set; None if they are not known.

    Raises:
        UserError: If the queue is longer than the data set.
    """
    if wanted is None:
        return LONGEST if num_samples is None else suited_length(num_samples)
    if num_samples is not None and wanted > num_samples:
        raise UserError(
            f"{name}: a queue of {wanted} vectors is longer than the data set of {num_samples} "
            f"images; set queue_size={suited_length(num_samples)}, or None, which chooses it by "
            "the data set"
        )
    return wanted


def ring_length(wanted: int | None, num_samples: int | None) -> int:
    """Return the length of SEED's ring, and print if it holds all images several times.

    See `queue_length`; its authors have 65,536 rows whatever the data set, so this is allowed.
    """
    if wanted is not None and num_samples is not None and wanted > num_samples:
        print_note(
            f"SEED: a ring of {wanted} vectors is longer than the data set of {num_samples} "
            f"images, so it holds images several times; set "
            f"queue_size={suited_length(num_samples)}, or None, which chooses it by the data set"
        )
    return queue_length("SEED", wanted, None if wanted else num_samples)


def in_front(rows: Tensor, queue: Tensor) -> Tensor:
    """Return a new queue [K, D] with rows [N, D] in front, in their order; the oldest are lost."""
    return torch.cat([rows, queue.to(rows)])[: len(queue)]


def write_round(queue: Tensor, place: Tensor, rows: Tensor) -> None:
    """Write rows [N, D] into a ring [K, D] from `place` on, round its end, and move `place`.

    Of more rows than the ring has, the last stay. Nothing is read on the host.

    Args:
        queue: Changed in place.
        place: Where the next row is written, int64 []; changed in place.
        rows: As many as you like.
    """
    length, count = len(queue), len(rows)
    skipped = max(count - length, 0)
    offsets = torch.arange(skipped, count, device=queue.device)
    queue.index_copy_(0, (place + offsets) % length, rows[skipped:].to(queue))
    place.copy_((place + count) % length)


def random_directions(length: int, width: int) -> Tensor:
    """Return random rows of unit length, [length, width], the same in every process and run."""
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(length, width, generator=generator))
