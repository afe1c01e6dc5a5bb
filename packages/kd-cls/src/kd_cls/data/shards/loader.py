"""The loader of shards: each worker reads its own streams; broken samples are counted."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from kd_core.data.augment import apply
from kd_core.data.sampling import Sampling
from kd_core.data.worker_loader import WorkerLoader
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from kd_core.runtime.console import err
from torch import Tensor

from kd_cls.data.shards.order import ShardOrder
from kd_cls.data.shards.samples import Read, ShardSamples

_PRINTED = 10  # broken samples, each in its line; of more, only some


class ShardLoader(WorkerLoader):
    """Samples of shards, read again in each epoch; see `ShardOrder` for their order.

    Args:
        samples: The images.
        labels: int64 [N].
        streams: See `ShardOrder`.
        most_broken: Samples that may be broken; each is printed, and one more ends the run.
        broken: How many are known already.
        shuffle: Whether this is for training.
        options: See `WorkerLoader`.
    """

    _ahead = 4  # tasks are parts of batches
    samples: ShardSamples

    def __init__(
        self,
        samples: ShardSamples,
        labels: Tensor,
        *,
        streams: int,
        most_broken: int = 0,
        broken: int = 0,
        **options: Any,
    ) -> None:
        if options.get("sampler") is None:
            options["sampler"] = ShardOrder(
                samples.shards(),
                batch_size=options["batch_size"],
                streams=streams,
                data_seed=options.get("data_seed", 0),
                copies=options.get("copies", 1),
                shuffle=options.get("shuffle", False),
            )
        super().__init__(samples, labels, **options)
        self.streams, self.most_broken, self.known = streams, most_broken, broken
        self.broken: set[int] = set()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on; one such iteration at a time.

        Raises:
            UserError: If a shard cannot be read, or too many samples are broken.
        """
        order = self.order(epoch)
        sampling = Sampling(order, self.data_seed, epoch, self.device, samples=len(self.labels))
        parts, pieces = self.places(start), max(self.workers, 1)
        self._plan.batches = _tasks(order, parts, pieces, epoch)
        self.samples.most_open = -(-self.streams // (self._world_size * pieces)) + 2
        order = order.to(self.device)
        reads = iter(self._started())
        # Tasks are given to workers in turns, so that a piece of every batch has the same worker.
        for part, found in zip(parts, zip(*[reads] * pieces, strict=True), strict=True):
            pieces_read = self._checked(found)
            # On a GPU each piece is in pinned memory; joined on the host they would not be.
            images = [self._to_device(read.images) for read in pieces_read]
            index = order[part] % len(self.labels)
            if any(read.problems for read in pieces_read):
                index = torch.cat([read.samples for read in pieces_read]).to(self.device)
            batch = self._batch(torch.cat(images) if len(images) > 1 else images[0], index)
            yield apply(self.augment, batch, sampling[part])

    def _checked(self, found: Sequence[Read | str]) -> list[Read]:
        """Return the pieces of a batch; print broken samples."""
        reads = [read for read in found if not isinstance(read, str)]
        try:
            for text in found:
                if isinstance(text, str):
                    raise UserError(text)
            for read in reads:
                self._count_broken(read.problems)
        except UserError:
            self._loader = None  # ends the workers before a traceback keeps references to them
            raise
        return reads

    def _count_broken(self, problems: Sequence[tuple[int, str]]) -> None:
        for index, text in problems:
            if index in self.broken:
                continue
            self.broken.add(index)
            count = self.known + len(self.broken)
            counted = (
                f"{count:,} broken samples so far, data.max_broken allows {self.most_broken:,}"
            )
            if count > self.most_broken:
                raise UserError(f"{text} ({counted})")
            if len(self.broken) <= _PRINTED or count & (count - 1) == 0:
                done = "another takes its place" if self.samples.replace else "left out"
                err.print(f"{text}; {done} ({counted})")


def _tasks(
    order: Tensor, parts: Sequence[slice], pieces: int, epoch: int
) -> Iterator[list[tuple[int, int]]]:
    """Yield the samples of each piece of each batch."""
    for part in parts:
        size = part.stop - part.start
        for piece in range(pieces):
            low, high = (part.start + size * edge // pieces for edge in (piece, piece + 1))
            yield [(epoch, index) for index in order[low:high].tolist()]
