"""Training batches as a function of (seed, iteration), whatever the workers or a resume."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, DatasetMapper, build_detection_train_loader
from detectron2.data.build import _train_loader_from_config, trivial_batch_collator
from detectron2.utils import comm
from kd_core.data.workers import outlive_stop_signals
from kd_core.errors import UserError
from kd_core.runtime.seed import mix
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from kd_det.data.reading import reading_sets

Mapper = Callable[[Any], Any]

_TRIES = 100  # samples in a row that a mapper may reject


def build_train_loader(
    cfg: CfgNode,
    mapper: Mapper | None = None,
    *,
    seed: int,
    start: int = 0,
    dataset: Any = None,
    sampler: Any = None,
) -> Any:
    """Return the training batches of a config, from a given iteration on.

    Data set, sampler and grouping by aspect ratio are those of Detectron2's
    `build_detection_train_loader`. The images of a batch depend on (seed, iteration) alone, the
    augmentation of an image on (seed, its place in the order); neither depends on the number of
    workers. A mapper may draw from the global generators of Python, NumPy and torch. An
    `IterableDataset` has no places, so it starts again from its beginning.

    Args:
        cfg: Detectron2's config; its SEED is not used.
        mapper: Turns an entry of the data set into an input of the model; None for `DatasetMapper`.
        seed: Seed of order and augmentation.
        start: Number of batches to skip.
        dataset: In place of `DATASETS.TRAIN`.
        sampler: In place of that of the config.

    Raises:
        UserError: If the processes cannot share a batch.
    """
    mapper = DatasetMapper(cfg, is_train=True) if mapper is None else mapper
    with (
        reading_sets(cfg.DATASETS.TRAIN),
        drawn_from(seed),
    ):  # Detectron2's samplers draw their seed from NumPy's generator
        parts = _train_loader_from_config(cfg, mapper, dataset=dataset, sampler=sampler)
    dataset, batch_size = parts["dataset"], _share(parts["total_batch_size"])
    if isinstance(dataset, IterableDataset):
        return build_detection_train_loader(cfg, mapper=mapper)
    groups = _aspect_ratios(dataset) if parts["aspect_ratio_grouping"] else None
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return DataLoader(
        MappedSamples(dataset, mapper, seed),
        batch_sampler=Batches(parts["sampler"], batch_size, groups=groups, start=start),
        num_workers=parts["num_workers"],
        collate_fn=trivial_batch_collator,
        worker_init_fn=outlive_stop_signals,
    )


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch's CPU inside; restore them afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class Batches(Sampler[list[tuple[int, int]]]):
    """Endless batches of (place in the order of all processes, index of the sample).

    Args:
        sampler: Endless indices, the share of this process.
        batch_size: Images of this process in a batch.
        groups: A number for every index; a batch has images of one number. None for one group.
        start: Number of batches to skip.
    """

    def __init__(
        self,
        sampler: Iterable[int],
        batch_size: int,
        *,
        groups: Sequence[int] | None = None,
        start: int = 0,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.groups = groups
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return islice(self._all(), self.start, None)

    def _all(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[int, list[tuple[int, int]]] = defaultdict(list)
        rank, processes = comm.get_rank(), comm.get_world_size()
        for number, index in enumerate(self.sampler):
            batch = waiting[self.groups[index] if self.groups else 0]
            batch.append((number * processes + rank, index))
            if len(batch) == self.batch_size:
                yield list(batch)
                batch.clear()


class MappedSamples(Dataset[Any]):
    """Maps the sample at a place, with random numbers of that place."""

    def __init__(self, dataset: Any, mapper: Mapper, seed: int) -> None:
        self.dataset = dataset
        self.mapper = mapper
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        place, index = key
        with drawn_from(mix(self.seed, place)):
            return self._mapped(index)

    def _mapped(self, index: int) -> Any:
        """Return a mapped sample; try another one if the mapper returns None."""
        for _ in range(_TRIES):
            sample = self.mapper(self.dataset[index])
            if sample is not None:
                return sample
            index = random.randrange(len(self.dataset))
        raise UserError(
            f"the mapper of the training data returned None for {_TRIES} samples in a row; it "
            "may do so for a broken image, not for most of them"
        )


def _share(images: int) -> int:
    """Return the number of images of a batch in this process."""
    processes = comm.get_world_size()
    if images < 1 or images % processes:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {images}, the images of all processes; wanted a "
            f"multiple of the {processes} processes"
        )
    return images // processes


def _aspect_ratios(dataset: Any) -> list[int]:
    """Return 1 for each sample that is wider than high, else 0: Detectron2's two groups."""
    samples = (dataset[index] for index in range(len(dataset)))
    return [int(one["width"] > one["height"]) for one in samples]
