"""DeviceLoader: batches of a set that fits on the device."""

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor

from kd_core.data.augment import BY_IMAGE, apply
from kd_core.data.sampling import Sampling
from kd_core.data.split_loader import SplitLoader
from kd_core.files.fingerprint import fingerprint
from kd_core.networks.task import Batch, rows_of

_LOOKED_AT = 2048  # images, where not all can be
_AT_ONCE = {"cuda": 8}  # batches; on a CPU they would only exceed its cache


class DeviceLoader(SplitLoader):
    """A data set stored on the device as one uint8 tensor; augmentation is batched there.

    Args:
        images: uint8 [N, 3, H, W].
        labels: int64 [N].
        options: See `SplitLoader`.
    """

    def __init__(self, images: Tensor, labels: Tensor, **options: Any) -> None:
        super().__init__(labels, **options)
        self.images = images

    def to(self, device: torch.device | str) -> Self:
        """Move the set to a device; returns the loader itself."""
        self.images = self.images.to(device)
        return super().to(device)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        order = self.order(epoch)
        sampling = Sampling(order, self.data_seed, epoch, self.device, samples=len(self.labels))
        order = order.to(self.device, non_blocking=True)
        for parts in self._together(self.places(start)):
            whole = slice(parts[0].start, parts[-1].stop)
            index = order[whole] % len(self.labels)
            batch = self._batch(self.images[index], index)
            batch = apply(self.augment, batch, sampling[whole])
            for part in parts:
                own = slice(part.start - whole.start, part.stop - whole.start)
                alone = len(parts) == 1  # then it may have several rows for each image
                yield batch if alone else rows_of(batch, own)

    def fingerprint(self) -> str:
        """Return a hash of labels and pixels; of large sets, only of some thousand images."""
        few = self.images[:: max(len(self.images) // _LOOKED_AT, 1)]
        return fingerprint(super().fingerprint(), few)

    def _together(self, parts: list[slice]) -> Iterator[list[slice]]:
        """Group batches that are augmented at once; a GPU needs the time of one for that."""
        by_image = all(type(augment) in BY_IMAGE for augment in self.augment)
        whole = by_image and self._world_size == 1
        count = _AT_ONCE.get(self.device.type, 1) if whole else 1
        return (parts[first : first + count] for first in range(0, len(parts), count))
