"""Index of shards: where each sample's image is, and its label; made in one pass and kept."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kd_core.errors import RunError, UserError
from kd_core.files import checkpoint
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from rich.progress import track
from torch import Tensor

from kd_cls.data.shards.addresses import is_url
from kd_cls.data.shards.members import Member, members
from kd_cls.data.shards.opening import open_shard
from kd_cls.data.shards.sample_files import BrokenSampleError, Wanted

_FORM = 2  # of the files; another one makes them again
_READERS = 8  # threads: they wait for disks and networks
_FEW = 16  # shards without a progress bar


@dataclass
class ShardIndex:
    """The samples of one shard.

    Attributes:
        keys: Their names in the archive, without endings.
        places: Checksum of the header, offset and size of each image, int64 [N, 3].
        labels: Their labels as texts.
        problems: Broken samples, which are not among the others: key and what is wrong.
        copied: Checksum of the archive if it must be fetched or unpacked before it is read.
    """

    keys: list[str]
    places: Tensor
    labels: list[str]
    problems: list[tuple[str, str]]
    copied: int | None


def index_shards(
    addresses: Sequence[str], wanted: Wanted, folder: Path, seconds: float
) -> list[ShardIndex]:
    """Return the index of every shard: one that is kept, or from a pass over the shard.

    A local shard is indexed again when its size or time of change differs; of a URL, a change is
    noticed when it is fetched to read an image.

    Args:
        addresses: Paths and URLs.
        wanted: What is read of every sample.
        folder: Where indices are kept, a file for each shard.
        seconds: How long a URL may give nothing.

    Raises:
        UserError: If a shard cannot be read, is damaged, or has a key twice.
    """
    # Ranks begin at different shards, and find what the others have made already.
    first = len(addresses) * distributed.rank() // distributed.world_size()
    turns = [*range(first, len(addresses)), *range(first)]
    with ThreadPoolExecutor(_READERS) as readers:
        made = track(
            readers.map(lambda n: _index_of(addresses[n], wanted, folder, seconds), turns),
            f"looking at {len(addresses):,} shards",
            total=len(addresses),
            console=err,
            disable=len(addresses) <= _FEW or distributed.rank() > 0,
            transient=True,
        )
        found = dict(zip(turns, made, strict=True))
    return [found[number] for number in range(len(addresses))]


def index_file(address: str, wanted: Wanted, folder: Path) -> Path:
    """Return where the index of a shard is kept."""
    if is_url(address):
        state = address
    else:
        found = os.stat(address)
        state = f"{os.path.realpath(address)} {found.st_size} {found.st_mtime_ns}"
    text = "\0".join(map(str, (_FORM, state, wanted.image, wanted.label)))
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.pth"


def _index_of(address: str, wanted: Wanted, folder: Path, seconds: float) -> ShardIndex:
    file = index_file(address, wanted, folder)
    if file.is_file():
        return _read(file)
    try:
        index = _scanned(address, wanted, seconds)
    except RunError as error:  # of a URL, before any work
        raise UserError(str(error)) from error
    state = {**vars(index), "problems": [list(each) for each in index.problems]}
    checkpoint.save(state, file)
    return index


def _read(file: Path) -> ShardIndex:
    remedy = "move it elsewhere, and it is created again"
    state = checkpoint.load(file, remedy=remedy)
    try:
        index = ShardIndex(**state)
        count = len(index.keys)
        sound = index.places.shape == (count, 3) and len(index.labels) == count
        index.problems = [(str(key), str(text)) for key, text in index.problems]
    except (TypeError, AttributeError, ValueError):
        sound = False
    if not sound:
        raise UserError(f"{file}: not the index of a shard; {remedy}")
    return index


def _scanned(address: str, wanted: Wanted, seconds: float) -> ShardIndex:
    file, copied = open_shard(address, seconds)
    keys, places, labels, problems = [], [], [], []
    with file:

        def read(member: Member) -> bytes:
            return os.pread(file.fileno(), member.size, member.offset)

        for key, files in _samples(list(members(file, address)), address).items():
            try:
                image, label = wanted.image_of(files), wanted.label_of(files, read)
            except BrokenSampleError as error:
                problems.append((key, str(error)))
                continue
            keys.append(key)
            places.append((image.mark, image.offset, image.size))
            labels.append(label)
    table = torch.tensor(places, dtype=torch.int64).reshape(-1, 3)
    return ShardIndex(keys, table, labels, problems, copied)


def _samples(found: Sequence[Member], address: str) -> dict[str, dict[str, Member]]:
    """Group files into samples as the library does: by their names up to the first dot."""
    from webdataset.tariterators import base_plus_ext

    samples: dict[str, dict[str, Member]] = {}
    last = None
    for member in found:
        key, ending = base_plus_ext(member.name)
        if key is None or key.rpartition("/")[2].startswith("__"):
            continue  # without an ending, or what the library calls meta data
        files: dict[str, Any] = samples.setdefault(key, {})
        if ending.lower() in files:
            raise UserError(
                f"{address}: the key {key!r} is there twice ({member.name}); give each sample its "
                "own"
            )
        if files and key != last:
            raise UserError(
                f"{address}: the files of sample {key!r} are not side by side ({member.name} is "
                "apart); pack them in order, such as with tar --sort=name"
            )
        files[ending.lower()] = member
        last = key
    return samples
