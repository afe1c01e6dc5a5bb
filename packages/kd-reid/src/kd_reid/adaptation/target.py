"""The unlabelled set: training images whose identities are clustered again in every epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from kd_core.config.build import build
from kd_core.config.values import PositiveInt
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError
from kd_core.experiment.builder import DATA
from kd_core.runtime import distributed
from torch import Tensor

from kd_reid.adaptation.clustering import OUTLIER
from kd_reid.data.options import Options, with_options
from kd_reid.data.sampler import IdentitySampler
from kd_reid.data.splits import DataSplits

_INSTANCES = 4


class ClusterSampler:
    """PK batches of clusters, the same number in every epoch; outliers are left out.

    See `IdentitySampler`. Until `assign` is called, every two consecutive images are a cluster:
    enough for a dry run.

    Args:
        samples: Images of the set, N.
        batch_size: P * K.
        instances: K.
        iterations: Batches of an epoch.
        data_seed: Seed of the order.
    """

    def __init__(
        self, samples: int, *, batch_size: int, instances: int, iterations: int, data_seed: int
    ) -> None:
        self.samples, self.iterations = samples, iterations
        self._settings = {
            "batch_size": batch_size,
            "instances": instances,
            "data_seed": data_seed,
        }
        self.assign(torch.arange(samples) // 2)

    def __len__(self) -> int:
        """Return the images of an epoch."""
        return self.iterations * self._settings["batch_size"]

    def assign(self, label: Tensor) -> None:
        """Use other clusters, int64 [N] on the host, from the next epoch on.

        Raises:
            UserError: If there are too few for a batch.
        """
        self._kept = (label != OUTLIER).nonzero()[:, 0]
        try:
            self._sampler = IdentitySampler(label[self._kept], **self._settings)
        except UserError as error:
            raise UserError(
                f"{int(label.max()) + 1} clusters: {error}; or change adaptation.pair_share, from "
                "which the radius of clusters follows: too small, it leaves outliers; too large, "
                "one cluster has all"
            ) from error
        self._sampler.batches = self.iterations

    def order(self, epoch: int) -> Tensor:
        """Return the images of an epoch; see `kd_core.data.split_loader.Sampler`."""
        places, kept = self._sampler.order(epoch), len(self._kept)
        return self._kept[places % kept] + places // kept * self.samples


@dataclass(kw_only=True)
class UnlabelledData(DataSplits):
    """A set whose training labels are all `OUTLIER`; its sampler takes any clusters.

    Attributes:
        sampler: That of `train`.
    """

    sampler: ClusterSampler

    def in_order(self) -> SplitLoader:
        """Return a loader of the training images, once each and without augmentation."""
        loader = self.train.shard(0, 1)
        loader.sampler, loader.shuffle, loader.drop_last, loader.augment = None, False, False, ()
        return loader


@with_options
def unlabelled(
    options: Options,
    *,
    of: str,
    arguments: Mapping[str, Any] | None = None,
    iterations: PositiveInt = 400,
) -> UnlabelledData:
    """Hide the identities of the training images; keep those of query and gallery.

    Args:
        options: See `Options`; its fields are keywords. `instances` is 4 unless given.
        of: Import path of the set, such as `kd_reid.data.market1501`.
        arguments: Of the set, besides the options.
        iterations: Batches of an epoch.

    Raises:
        UserError: If there are several processes, or batches cannot be composed in this way.
    """
    if distributed.is_distributed():
        raise UserError(
            "adaptation runs in one process, which clusters all images; run it without torchrun"
        )
    # Without `instances`: how often a person is in a batch must not depend on the true labels.
    node = {**vars(options), "instances": None, "type": of, **(arguments or {})}
    data = build(node, kind=DATA)
    if not isinstance(data, DataSplits):
        raise UserError(f"of={of!r} gave a {type(data).__name__}, not a set of people")
    train = data.train.shard(0, 1)
    train.sampler = sampler = ClusterSampler(
        data.num_samples,
        batch_size=options.batch_size,
        instances=options.instances or _INSTANCES,
        iterations=iterations,
        data_seed=options.data_seed,
    )
    train.labels = torch.full_like(train.labels, OUTLIER)
    room = tuple(str(number) for number in range(data.num_samples // 2))
    return UnlabelledData(**{**vars(data), "train": train, "identities": room}, sampler=sampler)
