"""All samples of some shards in one table, and what is printed of broken and repeated ones."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kd_core.errors import UserError
from kd_core.files.fingerprint import fingerprint
from kd_core.runtime import distributed
from torch import Tensor

from kd_cls.data.shards.index import ShardIndex, index_file, index_shards
from kd_cls.data.shards.sample_files import Wanted


@dataclass
class ShardTable:
    """The samples of some shards, in arrays that worker processes share.

    Attributes:
        addresses: Paths and URLs of the shards.
        indices: Files in which their indices are kept, for messages.
        shard: Number of each sample's shard, int64 [N].
        keys: Name of each sample in its shard, bytes [N].
        places: Checksum of the header, offset and size of each image, int64 [N, 3].
        labels: Label of each sample, texts [N].
        copied: Checksum of each shard that must be fetched or unpacked before it is read; None of
            the others.
        broken: Number of samples that were left out.
    """

    addresses: list[str]
    indices: list[str]
    shard: Tensor
    keys: np.ndarray
    places: Tensor
    labels: np.ndarray
    copied: list[int | None]
    broken: int

    def name(self, row: int) -> str:
        """Return what a sample is called in messages."""
        key = os.fsdecode(bytes(self.keys[row]))
        return f"{self.addresses[int(self.shard[row])]}: sample {key!r}"

    def fingerprint(self, rows: np.ndarray) -> str:
        """Return a hash of some samples: names, sizes and headers, not the paths of shards."""
        names = (os.fsdecode(bytes(key)) for key in self.keys[rows])
        return fingerprint(*names, self.places[torch.from_numpy(rows)])


class Rows:
    """Some samples of a table, which can be selected further.

    Args:
        table: The samples of all shards.
        numbers: Which of them, in order, int64 [N]; None takes all.
    """

    def __init__(self, table: ShardTable, numbers: np.ndarray | None = None) -> None:
        self.table = table
        self.numbers = np.arange(len(table.keys)) if numbers is None else numbers

    def __getitem__(self, chosen: Any) -> "Rows":
        """Return some of the samples, by their numbers or bool [N]."""
        return Rows(self.table, self.numbers[chosen])


def read_table(
    addresses: Sequence[str],
    wanted: Wanted,
    folder: Path,
    seconds: float,
    most_broken: int,
    part: str,
) -> ShardTable:
    """Index shards and join their samples; what is broken or repeated is printed in a line.

    Args:
        addresses: See `index_shards`.
        wanted: See `index_shards`.
        folder: See `index_shards`.
        seconds: See `index_shards`.
        most_broken: Samples that may be broken.
        part: What the samples are for, for messages.

    Raises:
        UserError: If there is no sample, too many are broken, or see `index_shards`.
    """
    found = index_shards(addresses, wanted, folder, seconds)
    broken = _check_problems(addresses, found, most_broken)
    counts = torch.tensor([len(index.keys) for index in found])
    if not counts.sum():
        raise UserError(
            f"data.{part}: no sample in {len(addresses):,} shards ({addresses[0]}, ...); a sample "
            "is an image and a label of one name, such as 0001.jpg and 0001.cls"
        )
    table = ShardTable(
        list(addresses),
        [str(index_file(address, wanted, folder)) for address in addresses],
        torch.arange(len(found)).repeat_interleave(counts),
        np.array([os.fsencode(key) for index in found for key in index.keys]),
        torch.cat([index.places for index in found]),
        np.array([label for index in found for label in index.labels]),
        [index.copied for index in found],
        broken,
    )
    _warn_of_repeated(table)
    return table


def _check_problems(addresses: Sequence[str], found: Sequence[ShardIndex], most_broken: int) -> int:
    broken = [
        f"{address}: sample {key!r}: {text}"
        for address, index in zip(addresses, found, strict=True)
        for key, text in index.problems
    ]
    if len(broken) > most_broken:
        raise UserError(
            f"{broken[0]} ({len(broken):,} broken samples; data.max_broken allows {most_broken:,})"
        )
    if broken:
        text = f"left out {len(broken):,} broken samples, of at most {most_broken:,}"
        distributed.print_note(f"{broken[0]}; {text}")
    return len(broken)


def _warn_of_repeated(table: ShardTable) -> None:
    """Warn of samples that shards share: of the same key, and images of the same size."""
    order = np.lexsort((table.places[:, 2].numpy(), table.keys))
    keys, sizes = table.keys[order], table.places[:, 2].numpy()[order]
    same = np.flatnonzero((keys[1:] == keys[:-1]) & (sizes[1:] == sizes[:-1]))
    if len(same):
        first, again = order[same[0]], order[same[0] + 1]
        distributed.print_note(
            f"warning: {len(same):,} samples seem to be in two shards, by key and size, such as "
            f"{table.name(first)}, also in {table.addresses[int(table.shard[again])]}"
        )
