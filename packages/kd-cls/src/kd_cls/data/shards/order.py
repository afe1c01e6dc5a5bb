"""The order of an epoch over shards: a function of data seed and epoch, read in streams."""

import numpy as np
import torch
from kd_core.data.sampling import epoch_order
from kd_core.runtime.seed import random_bits
from torch import Tensor

_WITHIN = 0x5A4D  # draws of the order in a shard, apart from those of augmentations


class ShardOrder:
    """Shards in random order, each shuffled, read in several streams side by side.

    The samples of all shards, one shard after the other, are cut into streams of equal length.
    A batch has the same part of its places from each stream, in the order of streams, so that a
    rank, which has a contiguous part of each batch, reads streams of its own, as does a worker.
    The order depends neither on the number of ranks nor on that of workers.

    Args:
        shard: Shard of each sample, int64 [N].
        batch_size: Samples in a global batch.
        streams: Number of streams; no more than `batch_size` are used.
        data_seed: Seed of the order.
        copies: How often a sample is in an epoch.
        shuffle: Whether each epoch has an order of its own.
    """

    def __init__(
        self,
        shard: Tensor,
        *,
        batch_size: int,
        streams: int,
        data_seed: int,
        copies: int = 1,
        shuffle: bool = True,
    ) -> None:
        self.shard, self.batch_size, self.streams = shard, batch_size, min(streams, batch_size)
        self.data_seed, self.copies, self.shuffle = data_seed, copies, shuffle

    def __len__(self) -> int:
        """Return the number of places in every epoch."""
        return len(self.shard) * self.copies

    def order(self, epoch: int) -> Tensor:
        """Return the sample at each place, int64 [places]; see `Sampler`."""
        return _side_by_side(self._by_shard(epoch), self.batch_size, self.streams)

    def _by_shard(self, epoch: int) -> Tensor:
        """Return all samples, shard by shard."""
        index, count = torch.arange(len(self)), len(self.shard)
        if not self.shuffle:
            return index
        shards = epoch_order(int(self.shard.max()) + 1, self.data_seed, epoch)
        turn = torch.empty_like(shards)
        turn[shards] = torch.arange(len(shards))
        bits = random_bits(index, self.data_seed, epoch, _WITHIN)
        return torch.from_numpy(np.lexsort((bits.numpy(), turn[self.shard[index % count]].numpy())))


def _side_by_side(samples: Tensor, batch_size: int, streams: int) -> Tensor:
    """Cut samples into streams, and lay these side by side in each batch."""
    full, rest = divmod(len(samples), batch_size)
    order = torch.empty_like(samples)
    batches, last = order[: full * batch_size].view(full, batch_size), order[full * batch_size :]
    begin = 0
    for stream in range(streams):
        low, high = (batch_size * edge // streams for edge in (stream, stream + 1))
        low_last, high_last = (rest * edge // streams for edge in (stream, stream + 1))
        end = begin + full * (high - low)
        batches[:, low:high] = samples[begin:end].view(full, high - low)
        begin = end + high_last - low_last
        last[low_last:high_last] = samples[end:begin]
    return order
