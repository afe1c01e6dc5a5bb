"""On-disk cache of decoded images, shared by epochs, runs and seeds."""

import hashlib
import os
import shutil
import time
import zlib
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from kd_core.data.image_files import DECODER, read_pixels, size_of_pixels
from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.files.checkpoint import atomic_folder
from kd_core.runtime import distributed
from kd_core.runtime.console import err

_READERS = 16  # threads that read headers: mostly they wait for the disk
_FEW_IMAGES = 2000
_SIZES = "sizes.pth"
_REMEDY = "move its folder elsewhere, and it is created again"
_MARK = 4  # bytes of the checksum before an image's pixels; 0 while they are not stored


class DecodedImages:
    """The pixels of a set of image files, uint8 RGB; each image is stored at its first use.

    A store is one sparse file: for each image a checksum (0 while it is not stored) and its
    pixels. The pixels are written first, then the checksum. So several runs may fill and use a
    store at once, and a killed one leaves no half-written image. A process compares the checksum
    when it first reads an image. After a change of files, side or version of Pillow a new store is
    used; the old one stays, and a message names it.

    Args:
        folder: Where stores are kept, best on a local disk.
        files: Paths of the images, bytes [N].
        side: Images whose shorter side is longer are reduced to this many pixels, bilinear; None
            keeps all pixels, so that results are the same without a store.

    Raises:
        UserError: If the store does not fit on the disk, or it or an image's header is damaged.
    """

    def __init__(self, folder: str | Path, files: np.ndarray, *, side: int | None = None) -> None:
        if side is not None and side < 1:
            raise UserError(f"the shorter side of stored images is {side} pixels; wanted 1 or more")
        self.files, self.side = np.unique(files), side
        self.path = Path(folder, _key(self.files, side))
        known = self.path.is_dir()
        self.sizes = self._read_sizes() if known else _sizes(self.files, side)
        # Checksums start at multiples of 4, so that none is half written.
        ends = (_MARK + (3 * self.sizes.prod(axis=1) + 3) // 4 * 4).cumsum()
        self._starts, self.bytes = np.append(0, ends[:-1]), int(ends[-1])
        self._checked = np.zeros(len(self.files), dtype=bool)
        self._announce(known)
        if not known:
            self._create()
        self._check_length()

    def __call__(self, file: str) -> np.ndarray:
        """Return the pixels of an image of the set, uint8 [H, W, 3].

        Raises:
            UserError: If the image cannot be decoded (names its file), or the store not written.
        """
        row = int(np.searchsorted(self.files, os.fsencode(file)))
        start, shape = int(self._starts[row]), (*self.sizes[row].tolist(), 3)
        for again in (False, True):  # its checksum may be half written just now
            mark, stored = self._read(start, shape)
            if not mark:
                break
            if self._checked[row] or mark == _sum_of(stored, row):
                self._checked[row] = True
                return stored
            time.sleep(0.01 * (not again))
        else:
            raise UserError(
                f"{self.path / 'pixels'}: damaged (the checksum of the pixels of {file} does not "
                f"match); {_REMEDY}"
            )
        pixels = read_pixels(file, self.side)
        if pixels.shape != shape:
            raise UserError(
                f"{file}: its header says {shape[0]} x {shape[1]} pixels, but it has "
                f"{pixels.shape[0]} x {pixels.shape[1]}; was it replaced just now? start again"
            )
        self._write(pixels, start, _sum_of(pixels, row))
        return pixels

    def filled(self) -> int:
        """Return the bytes that the store uses on the disk now."""
        return _taken(self.path)

    def _read(self, start: int, shape: tuple[int, ...]) -> tuple[int, np.ndarray]:
        """Return the checksum and the pixels at a place of the store; 0 if they are not stored."""
        pixels = np.empty(shape, dtype=np.uint8)
        # Opened each time: workers must not share a position, and it takes microseconds.
        with (self.path / "pixels").open("rb", buffering=0) as store:
            store.seek(start)
            mark = int.from_bytes(store.read(_MARK), "little")
            if mark and store.readinto(pixels.data) != pixels.nbytes:
                raise UserError(f"{self.path / 'pixels'}: damaged (it is cut off); {_REMEDY}")
        return mark, pixels

    def _write(self, pixels: np.ndarray, start: int, mark: int) -> None:
        try:
            # A mapped file would kill the process when the disk is full; a write raises.
            with (self.path / "pixels").open("r+b") as store:
                store.seek(start + _MARK)
                store.write(pixels.data)
                store.flush()
                store.seek(start)
                store.write(mark.to_bytes(_MARK, "little"))
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error}); make room, or run without `decoded`"
            ) from error

    def _announce(self, known: bool) -> None:
        """Print the size of the store, and reject one that does not fit."""
        folder = self.path.parent
        here = folder.absolute()
        while not here.is_dir():
            here = here.parent
        free, filled = shutil.disk_usage(here).free, self.filled()
        if distributed.rank() == 0:
            err.print(
                f"decoded images: {len(self.files):,} in {self.path}, {_size(self.bytes)} when "
                f"full, {_size(filled)} now; {_size(free)} free on that disk"
            )
            others = [] if known else [p.parent for p in folder.glob("*/pixels")]
            if others:
                err.print(
                    f"{folder} also has {len(others)} of other files, or of these before they "
                    f"changed, {_size(sum(map(_taken, others)))}: delete what no run needs"
                )
        if self.bytes - filled > free:
            raise UserError(
                f"{self.path}: {_size(self.bytes)} of decoded images do not fit, {_size(free)} are "
                "free; name a folder on a larger disk, or store smaller images (`decoded_side`)"
            )

    def _create(self) -> None:
        try:
            with atomic_folder(self.path) as folder:
                checkpoint.save({"sizes": torch.from_numpy(self.sizes)}, folder / _SIZES)
                with (folder / "pixels").open("wb") as store:
                    store.truncate(self.bytes)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be created ({error}); name a folder that can be written"
            ) from error

    def _read_sizes(self) -> np.ndarray:
        remedy = f"move {self.path} elsewhere, and it is created again"
        sizes = checkpoint.load(self.path / _SIZES, remedy=remedy).get("sizes")
        if not isinstance(sizes, torch.Tensor) or sizes.shape != (len(self.files), 2):
            raise UserError(f"{self.path / _SIZES}: not the sizes of these images; {remedy}")
        return sizes.numpy()

    def _check_length(self) -> None:
        store = self.path / "pixels"
        found = store.stat().st_size if store.is_file() else 0
        if found != self.bytes:
            raise UserError(f"{store}: damaged ({found} bytes, not {self.bytes}); {_REMEDY}")


def _sum_of(pixels: np.ndarray, row: int) -> int:
    """Return the checksum of an image and its number, so that images cannot be swapped; never 0."""
    return zlib.crc32(pixels.data, row) or 1


def _key(files: np.ndarray, side: int | None) -> str:
    """Return a name from all that the pixels depend on; the folder of the set does not count."""
    folders = [os.path.dirname(os.fsdecode(file)) for file in (files[0], files[-1])]
    beyond = len(os.fsencode(os.path.commonpath(folders)))  # sorted, so common to all of them
    key = hashlib.sha256(f"{DECODER} {side} crc32".encode())
    for file in files.tolist():
        try:
            found = os.stat(file)
        except OSError as error:
            raise UserError(f"{os.fsdecode(file)}: cannot be read ({error})") from error
        key.update(b"\0%s\0%d %d" % (file[beyond:], found.st_size, found.st_mtime_ns))
    return key.hexdigest()[:16]


def _sizes(files: np.ndarray, side: int | None) -> np.ndarray:
    """Read height and width of the pixels to store from the headers, int64 [N, 2]."""
    quiet = len(files) <= _FEW_IMAGES or distributed.rank() > 0
    with ThreadPool(_READERS) as readers:
        sizes = track(
            readers.imap(lambda file: size_of_pixels(os.fsdecode(file), side), files, 64),
            f"looking at {len(files):,} images",
            total=len(files),
            console=err,
            disable=quiet,
            transient=True,
        )
        return np.array(list(sizes), dtype=np.int64)


def _taken(store: Path) -> int:
    """Return the bytes on disk of a store's pixels, without its holes; 0 if there is none."""
    try:
        return getattr((store / "pixels").stat(), "st_blocks", 0) * 512
    except OSError:
        return 0


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
