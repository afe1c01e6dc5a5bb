"""Shards as files with random access: local ones as they are, others fetched or unpacked first."""

import bz2
import gzip
import lzma
import os
import select
import stat
import tempfile
import time
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from kd_core.errors import RunError, UserError
from kd_core.runtime.failures import explain, first_line

from kd_cls.data.shards.addresses import is_url

_BLOCK = 2**20
_TRIES = 3
_UNPACK: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}
_CURL = {
    3: "not an address; a space is written %20",
    6: "no host has this name",
    7: "nobody answers there",
    18: "cut off on the way",
    22: "the server says that it is missing, or refuses it",
    28: "no answer in time",
    47: "it is moved in a circle",
}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def open_shard(address: str, seconds: float) -> tuple[BinaryIO, int | None]:
    """Open a shard.

    Args:
        address: Path or URL.
        seconds: How long a URL may give nothing; 0 waits forever.

    Returns:
        The tar archive, and its checksum if it is a copy: fetched or unpacked into a file without
        a name, which is gone when it is closed.

    Raises:
        UserError: If it cannot be read; a `RunError` if a URL gives nothing.
    """
    checksum = None
    if is_url(address):
        file, checksum = _fetched(address, seconds)
    else:
        file = _local(address)
    head = os.pread(file.fileno(), 6, 0)
    unpack = next((by for magic, by in _UNPACK.items() if head.startswith(magic)), None)
    if other := _OTHERS.get(head[:4]):
        file.close()
        raise UserError(
            f"{address}: packed by {other}, which is not read; unpack it, or pack it by gzip, "
            "bzip2 or xz"
        )
    if unpack is None:
        return file, checksum
    with file:
        try:
            return _copied(unpack(file))
        except _DAMAGED as error:
            raise UserError(f"{address}: damaged ({first_line(error)}); replace it") from error
        except OSError as error:
            raise explain(error) or RunError(f"{address}: cannot be unpacked ({error})") from error


def _local(path: str) -> BinaryIO:
    try:  # without waiting for the other end of a FIFO
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UserError(f"{path}: is not a file; wanted a shard, a tar archive")
    return file


def _fetched(url: str, seconds: float) -> tuple[BinaryIO, int]:
    for rest in reversed(range(_TRIES)):
        try:
            return _fetched_once(url, seconds)
        except RunError:
            if not rest:
                raise
            time.sleep(1)
    raise AssertionError


def _fetched_once(url: str, seconds: float) -> tuple[BinaryIO, int]:
    from webdataset.gopen import gopen

    stream: Any = None
    try:
        stream = gopen(url)
        copy = _copied(_Pipe(stream, seconds) if hasattr(stream, "proc") else stream)
        stream.close()  # raises if the program failed
        return copy
    except RunError as error:
        raise RunError(f"{url}: {error}") from error
    except Exception as error:  # each kind of URL raises its own
        why = _ended(getattr(stream, "proc", None)) or explain(error) or first_line(error)
        raise RunError(f"{url}: cannot be read ({why}); is it there, and the network?") from error


def _ended(program: Any) -> str:
    """Return how a program failed; nothing if there is none, or it did not."""
    status = getattr(program, "returncode", None)
    if not status:
        return ""
    is_curl = isinstance(program.args, list) and program.args[0] == "curl"
    said = f", {_CURL[status]}" if is_curl and status in _CURL else ""
    return f"its program ended with status {status}{said}"


class _Pipe:
    """The output of a program that is not waited for longer than some seconds."""

    def __init__(self, stream: Any, seconds: float) -> None:
        self.program, self.seconds = stream.proc, seconds or None

    def read(self, size: int) -> bytes:
        output = self.program.stdout.fileno()
        if not select.select([output], [], [], self.seconds)[0]:
            self.program.kill()
            raise RunError(f"gave nothing for {self.seconds:g} s; raise data.worker_timeout")
        return os.read(output, size)


def _copied(source: Any) -> tuple[BinaryIO, int]:
    """Copy into a file without a name; returns it and its checksum.

    Raises:
        UserError: If the disk is full.
    """
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    try:
        checksum = 0
        while block := source.read(_BLOCK):
            copy.write(block)
            checksum = zlib.crc32(block, checksum)
        copy.flush()
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy, checksum
