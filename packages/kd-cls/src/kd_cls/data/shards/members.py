"""What is in a tar archive: its files, with their place; damaged archives are found out."""

import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from kd_core.errors import UserError
from kd_core.runtime.failures import first_line

HEADER = 512  # bytes, directly before a file's content
_BLOCK = 2048 * HEADER


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    mark: int  # checksum of its header
    offset: int  # of its content, in bytes
    size: int
    fault: str = ""  # why its content cannot be read at this place


def members(file: BinaryIO, address: str) -> Iterator[Member]:
    """Yield the files of a tar archive, and links, which are at fault; nothing else that is in it.

    Args:
        file: The archive, without compression.
        address: What it is called in messages.

    Raises:
        UserError: If it is not a tar archive, is damaged or cut off, or more than one.
    """
    length = file.seek(0, 2)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            before = -1
            while (found := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # they would take more memory than an index
                fault = _fault(found)
                size = 0 if fault else found.size  # which is not that of the content
                if not before < found.offset <= found.offset_data <= length - size:
                    raise tarfile.ReadError(f"{found.name} is cut off")
                before = found.offset
                if found.isreg() or fault:
                    mark = _mark(file, found.offset_data - HEADER)
                    yield Member(found.name, mark, found.offset_data, size, fault)
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
    _check_end(file, address)


def _fault(found: tarfile.TarInfo) -> str:
    if found.islnk() or found.issym():
        return "is a link; pack the file itself (tar --dereference --hard-dereference)"
    return "is packed with holes; pack it whole (tar without --sparse)" if found.issparse() else ""


def _check_end(file: BinaryIO, address: str) -> None:
    """Reject a second archive after the end: nothing of it is read. What else is there may be.

    Raises:
        UserError: If there is one.
    """
    while block := file.read(_BLOCK):
        places = range(0, len(block), HEADER) if any(block) else ()
        if any(_is_header(block[place : place + HEADER]) for place in places):
            raise UserError(
                f"{address}: files follow its end of archive: two archives in one, or a damaged "
                "one; name each of them, or join them with tar --concatenate"
            )


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _mark(file: BinaryIO, offset: int) -> int:
    file.seek(offset)
    return zlib.crc32(file.read(HEADER))
