"""Data sets that do not fit on the device: worker processes read samples in each epoch."""

import os
from collections.abc import Iterator
from typing import Any, Self

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from kd_core.data.augment import apply
from kd_core.data.prefetch import copier
from kd_core.data.samples.sampled import Samples
from kd_core.data.sampling import Sampling
from kd_core.data.split_loader import SplitLoader
from kd_core.data.workers import WORKER_TIMEOUT, Watched, checked_timeout, outlive_stop_signals
from kd_core.errors import UserError
from kd_core.files.fingerprint import fingerprint
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from kd_core.runtime.console import err

_FEW_IMAGES = 2000  # a second of decoding: not worth workers or a progress bar


class WorkerLoader(SplitLoader):
    """A set of samples, read again in each epoch.

    Workers read single images; then the augmentations of `SplitLoader` run on the device.
    Persistent workers get (epoch, index) pairs and seed the host generators from them. So a batch
    depends neither on the number of workers nor on where the epoch was resumed.

    Args:
        samples: The images.
        labels: int64 [N].
        workers: Worker processes; None takes one for each core up to eight, 0 none.
        worker_timeout: Seconds after which a worker without a batch counts as lost; 0 waits
            forever.
        options: See `SplitLoader`.
    """

    _ahead = 2  # tasks that wait for each worker

    def __init__(
        self,
        samples: Samples,
        labels: Tensor,
        *,
        workers: int | None = None,
        worker_timeout: float = WORKER_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(labels, **options)
        self.samples = samples
        self.workers = default_workers() if workers is None else workers
        self.worker_timeout = checked_timeout(worker_timeout)
        self._to_device = copier(self.device)
        self._plan = _Plan()
        self._loader: Watched | None = None

    def to(self, device: torch.device | str) -> Self:
        """Make batches on this device from now on; returns the loader itself."""
        if torch.device(device).type != self.device.type:
            self._loader = None  # whether its memory is pinned depends on the device
        self._to_device = copier(torch.device(device))
        return super().to(device)

    def fingerprint(self) -> str:
        """Return a hash of labels and samples."""
        return fingerprint(super().fingerprint(), self.samples.fingerprint())

    def shard(self, rank: int, world_size: int) -> Self:
        """Return a loader of this rank's part of each global batch; see `SplitLoader.shard`."""
        part = super().shard(rank, world_size)
        part._plan, part._loader = _Plan(), None
        return part

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on; one such iteration at a time.

        Raises:
            UserError: If an image cannot be read, naming its file.
        """
        order = self.order(epoch)
        sampling = Sampling(order, self.data_seed, epoch, self.device, samples=len(self.labels))
        parts, host_order = self.places(start), order
        # With `self` in this generator, a loader that is left early would be garbage in a cycle.
        # Python would end its workers in the wrong order: five seconds of waiting.
        self._plan.batches = ([(epoch, i) for i in host_order[part].tolist()] for part in parts)
        order = order.to(self.device)
        for part, images in zip(parts, self._started(), strict=True):
            if isinstance(images, str):
                self._loader = None  # ends the workers before a traceback keeps references to them
                raise UserError(images + self.samples.more_broken(images))
            batch = self._batch(self._to_device(images), order[part] % len(self.labels))
            yield apply(self.augment, batch, sampling[part])

    def _started(self) -> Watched:
        """Return the workers, which stay from one epoch to the next."""
        if self._loader is None:
            loader = DataLoader(
                self.samples,
                batch_sampler=self._plan,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                prefetch_factor=self._ahead if self.workers else None,
                collate_fn=_as_it_is,
                worker_init_fn=outlive_stop_signals,
                pin_memory=self.device.type == "cuda",
                generator=torch.Generator(),  # else each epoch draws from torch's global one
            )
            self._loader = Watched(loader, self.worker_timeout, "data.worker_timeout")
        return self._loader


def read_all(
    samples: Samples, *, workers: int | None = None, worker_timeout: float = WORKER_TIMEOUT
) -> Tensor:
    """Read all images once, in worker processes if there are many; uint8 [N, 3, H, W].

    Raises:
        UserError: If an image cannot be read, naming it.
    """
    count = samples.count
    loader = WorkerLoader(
        samples,
        torch.zeros(count, dtype=torch.int64),
        workers=workers if count > _FEW_IMAGES else 0,
        worker_timeout=worker_timeout,
        batch_size=256,
    )
    images = torch.empty(count, 3, *samples.size, dtype=torch.uint8)
    batches = track(
        loader.epoch(0),
        f"reading {count} images",
        total=len(loader),
        console=err,
        disable=count <= _FEW_IMAGES or distributed.rank() > 0,
        transient=True,
    )
    for batch in batches:
        images[batch["index"]] = batch["image"]
    return images


def default_workers() -> int:
    """Return one worker for each core this process may use, at most eight."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


class _Plan:
    """The batches that the workers make; replaced in each epoch, while the workers stay."""

    def __init__(self) -> None:
        self.batches: Iterator[list[tuple[int, int]]] = iter(())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.batches


def _as_it_is(batch: Any) -> Any:
    return batch
