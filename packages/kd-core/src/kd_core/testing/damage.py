"""Damage files as disks and interrupted copies do, for tests and campaigns."""

import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kd_core.errors import UserError


def flip_bit(path: Path, rng: random.Random | None = None, *, at: int | None = None) -> int:
    """Flip one bit of a file.

    Args:
        path: The file; other files that share its storage (hard links) change too.
        rng: Generator of the bit; None is a new generator of seed 0.
        at: Number of the byte, from the end if negative; drawn if None.

    Returns:
        The number of the byte.
    """
    rng = rng or random.Random(0)
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        at = rng.randrange(size) if at is None else at % size
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))
    return at


def cut(path: Path, rng: random.Random | None = None, *, to: int | None = None) -> int:
    """Cut the end of a file off.

    Args:
        path: The file.
        rng: Generator of its new length; None is a new generator of seed 0.
        to: The new length, from the end if negative; drawn if None, and 0 is possible.

    Returns:
        The new length.
    """
    size = path.stat().st_size
    length = (rng or random.Random(0)).randrange(size) if to is None else to % size
    with path.open("r+b") as file:
        file.truncate(length)
    return length


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Restore the contents of a file when the block ends."""
    contents = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(contents)


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refusal(read: Callable[[], Any], path: Path | None = None) -> str | None:
    """Return the message that rejects a damaged file; None if the file is read.

    Args:
        read: Reads it.
        path: The file, which the line must name; None if it need not.

    Raises:
        AssertionError: If the message is not one line, or does not name the file.
    """
    try:
        read()
    except UserError as error:
        line = str(error)
        assert "\n" not in line, f"more than one line: {line!r}"
        assert path is None or path.name in line, f"{path} is not named: {line}"
        return line
    return None
