"""What is in a tar archive: its files, with their place; damaged archives are found out."""

import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from kd_core.errors import UserError
from kd_core.runtime.failures import first_line

HEADER = 512  # bytes, directly before a file's content


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    mark: int  # checksum of its header
    offset: int  # of its content, in bytes
    size: int


def members(file: BinaryIO, address: str) -> Iterator[Member]:
    """Yield the files of a tar archive; links, folders and devices are left out.

    Args:
        file: The archive, without compression.
        address: What it is called in messages.

    Raises:
        UserError: If it is not a tar archive, or is damaged or cut off.
    """
    length = file.seek(0, 2)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            before = -1
            while (found := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # they would take more memory than an index
                if not before < found.offset <= found.offset_data <= length - found.size:
                    raise tarfile.ReadError(f"{found.name} is cut off")
                before = found.offset
                if found.isreg() and not found.issparse():
                    mark = _mark(file, found.offset_data - HEADER)
                    yield Member(found.name, mark, found.offset_data, found.size)
            file.seek(archive.offset)
            end = file.read(HEADER)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{address}: not a tar archive, or damaged ({first_line(error)}); replace it"
        ) from error
    if end != bytes(HEADER):
        raise UserError(f"{address}: damaged or cut off (it has no end of archive); replace it")


def _mark(file: BinaryIO, offset: int) -> int:
    file.seek(offset)
    return zlib.crc32(file.read(HEADER))
