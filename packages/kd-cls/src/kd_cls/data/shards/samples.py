"""The images of shards as samples, read in worker processes."""

import io
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import torch
from kd_core.data.image_files import Transform, decode_image
from kd_core.data.samples.image_samples import transformed
from kd_core.data.samples.sampled import Samples
from kd_core.data.sampling import borrowed_generators, seed_generators
from kd_core.errors import UserError
from kd_core.runtime.seed import mix
from torch import Tensor

from kd_cls.data.shards.members import HEADER
from kd_cls.data.shards.opening import open_shard
from kd_cls.data.shards.sample_files import BrokenSampleError
from kd_cls.data.shards.table import Rows


class Read(NamedTuple):
    """A part of a batch, as a worker gives it.

    Attributes:
        images: uint8 [n, 3, H, W].
        samples: Which samples they are, int64 [n].
        problems: Broken samples that were met: their index and what is wrong.
    """

    images: Tensor
    samples: Tensor
    problems: list[tuple[int, str]]


class ShardSamples(Samples):
    """The images of some samples of a table.

    Args:
        rows: The samples, in the order of their table.
        transform: From a PIL image to a PIL image or uint8 tensor of `image_size`.
        image_size: See `Samples`.
        data_seed: Seed of the transform's draws.
        replace: Whether the next sound sample of its shard takes the place of a broken one, so
            that batches keep their size; otherwise it is left out.
        seconds: How long a URL may give nothing.
    """

    def __init__(
        self,
        rows: Rows,
        transform: Transform,
        image_size: int,
        data_seed: int,
        *,
        replace: bool,
        seconds: float,
    ) -> None:
        super().__init__(len(rows.numbers), image_size, data_seed)
        self.table, self.rows = rows.table, rows.numbers
        self.transform, self.replace = transform, replace
        self.seconds, self.most_open = seconds, 4
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": OrderedDict()}  # a worker opens its own

    def name(self, index: int) -> str:
        """Return shard and key of a sample."""
        return self.table.name(int(self.rows[index]))

    def image(self, index: int) -> Tensor:
        """Return a sample's image after the transform.

        Raises:
            BrokenSampleError: If it cannot be decoded.
            UserError: If its shard cannot be read, or the transform fails.
        """
        name, content = self.name(index), self._content(index)
        try:
            image = decode_image(io.BytesIO(content), name)
        except UserError as error:
            raise BrokenSampleError(str(error)) from error
        return transformed(image, self.transform, self.size, name)

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> Read | str:
        """Return the images of (epoch, index) pairs, or a text that says what is wrong."""
        images = torch.empty(len(pairs), 3, *self.size, dtype=torch.uint8)
        used: list[int] = []
        problems: list[tuple[int, str]] = []
        with borrowed_generators():
            for epoch, index in pairs:
                seed = mix(self.data_seed, epoch, index)
                try:
                    found = self._sound(index % self.count, seed, problems)
                except UserError as error:
                    return str(error)
                if found is not None:
                    images[len(used)] = found[1]
                    used.append(found[0])
        return Read(images[: len(used)], torch.tensor(used, dtype=torch.int64), problems)

    def fingerprint(self) -> str:
        """Return a hash of the samples' names, sizes and headers."""
        return self.table.fingerprint(self.rows)

    def shards(self) -> Tensor:
        """Return the shard of each sample, int64 [N]."""
        return self.table.shard[torch.from_numpy(self.rows)]

    def _sound(
        self, index: int, seed: int, problems: list[tuple[int, str]]
    ) -> tuple[int, Tensor] | None:
        """Return an image and its index: that of a sample, or what takes its place."""
        for candidate in self._candidates(index):
            seed_generators(seed)
            try:
                return candidate, self.image(candidate)
            except BrokenSampleError as error:
                problems.append((candidate, str(error)))
        if self.replace:
            raise UserError(f"{problems[-1][1]}; no sample of this shard can be decoded")
        return None

    def _candidates(self, index: int) -> Iterator[int]:
        """Yield a sample, and all others of its shard that may take its place, in turn."""
        yield index
        if self.replace:
            shards = self.shards()
            same = (shards == shards[index]).nonzero().flatten().tolist()
            place = same.index(index)
            yield from (*same[place + 1 :], *same[:place])

    def _content(self, index: int) -> bytes:
        """Return the bytes of an image; reject those of another shard than was indexed."""
        row = int(self.rows[index])
        shard, (mark, offset, size) = int(self.table.shard[row]), self.table.places[row].tolist()
        content = os.pread(self._file(shard).fileno(), HEADER + size, offset - HEADER)
        if zlib.crc32(content[:HEADER]) != mark or len(content) != HEADER + size:
            key = os.fsdecode(bytes(self.table.keys[row]))
            raise self._replaced(shard, f"sample {key!r} is not at its place")
        return content[HEADER:]

    def _replaced(self, shard: int, what: str) -> UserError:
        return UserError(
            f"{self.table.addresses[shard]}: is not what was indexed, {what}; was it replaced? "
            f"move {self.table.indices[shard]} elsewhere, and start again"
        )

    def _file(self, shard: int) -> BinaryIO:
        """Return an open shard; only some stay open, since each may be a copy on the disk."""
        if shard in self._open:
            self._open.move_to_end(shard)
        else:
            while len(self._open) >= self.most_open:
                self._open.popitem(last=False)[1].close()
            file, checksum = open_shard(self.table.addresses[shard], self.seconds)
            if checksum != self.table.copied[shard]:
                file.close()
                raise self._replaced(shard, "its content differs")
            self._open[shard] = file
        return self._open[shard]
