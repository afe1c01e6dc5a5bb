"""The parts of a set of shards: their loaders, and what they must not have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from kd_core.data.image_files import Transform
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from torch import Tensor

from kd_cls.data.augment import Flip
from kd_cls.data.options import Options
from kd_cls.data.shards.addresses import place_of
from kd_cls.data.shards.loader import ShardLoader
from kd_cls.data.shards.samples import ShardSamples
from kd_cls.data.shards.table import Rows, ShardTable


@dataclass(frozen=True)
class Parts:
    """Makes the loader of a part.

    Args:
        options: See `Options`.
        image_size: Side of the images in pixels.
        training: Transform of training images.
        central: Transform of the others.
        arguments: Of every `ShardLoader`.
    """

    options: Options
    image_size: int
    training: Transform
    central: Transform
    arguments: Mapping[str, Any]

    def __call__(self, rows: Rows, labels: Tensor, *, training: bool) -> SplitLoader:
        """Return the loader of some samples."""
        copied = any(checksum is not None for checksum in rows.table.copied)
        if training and self.options.balanced and copied:
            raise UserError(
                "data.balanced takes samples from all shards at any time, which would be fetched "
                "or unpacked again and again; store them as local .tar files, or use "
                "student.class_weights=balanced"
            )
        samples = ShardSamples(
            rows,
            self.training if training else self.central,
            self.image_size,
            self.options.data_seed,
            replace=training,
            seconds=self.arguments["worker_timeout"],
        )
        options = self.options.loader_arguments(labels, training, [Flip()])
        return ShardLoader(samples, labels, broken=rows.table.broken, **self.arguments, **options)


def check_apart(addresses: Mapping[str, Sequence[str]]) -> None:
    """Reject a shard in two parts.

    Raises:
        UserError: Names it.
    """
    seen: dict[str, str] = {}
    for part, names in addresses.items():
        for name in names:
            if (other := seen.setdefault(place_of(name), part)) != part:
                raise UserError(
                    f"data.{part}: {name} is a shard of data.{other} too; keep it in one of them"
                )


def warn_of_shared(tables: Mapping[str, ShardTable]) -> None:
    """Warn of training samples that seem to be in another part, by key and size of the image."""
    train = tables["train"]
    for part, table in tables.items():
        if part == "train" or distributed.rank() > 0:
            continue
        both = np.intersect1d(_known_by(train), _known_by(table))
        if len(both):
            first = int(np.flatnonzero(_known_by(table) == both[0])[0])
            err.print(
                f"warning: {len(both):,} samples of data.{part} seem to be training samples too, "
                f"by key and size, such as {table.name(first)}"
            )


def _known_by(table: ShardTable) -> np.ndarray:
    sizes = table.places[:, 2].numpy().astype(bytes)
    return np.char.add(np.char.add(table.keys, b"\0"), sizes)
