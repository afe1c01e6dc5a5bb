"""Claims: a run owns its folder, and only one of several runs makes a shared product.

A claim ends with its block, also on an error or Ctrl-C. After a kill it ends by itself: at once
where its process is known to be dead, and `EXPIRES` seconds after its last sign of life where the
process is on another machine. A stopped process (SIGSTOP) keeps its claims. Readers need no claim.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from kd_core.errors import UserError
from kd_core.files.claim_file import EXPIRES, HEARTBEAT, Claim, Owner, claims_in, read, take
from kd_core.runtime import distributed
from kd_core.runtime.console import err

POLL = 1.0
"""Seconds between checks whether another run has made the product."""

_T = TypeVar("_T")


@contextmanager
def claimed(folder: Path, *, patient: bool = False) -> Iterator[None]:
    """Own a folder and its contents inside the block; the folder is created if it is missing.

    A created folder is removed again if it stays empty. With several processes, rank 0 claims and
    shares the outcome with all.

    Args:
        folder: Of a run.
        patient: Wait until the claim of a process that was killed on another machine is void.

    Raises:
        UserError: If another live run owns it, or it cannot be written.
    """
    deadline = time.monotonic() + (EXPIRES + 2 * HEARTBEAT if patient else 0)
    waited_for: list[Owner] = []

    def take_it() -> tuple[Claim, Path] | None:
        found = take(folder)
        if isinstance(found, Owner) and time.monotonic() < deadline:
            _say_once(waited_for, found, "this run", "owns")
            return None
        if isinstance(found, Owner):
            raise UserError(
                f"{folder} is in use by another run: {found}; wait until it ends, or name another "
                f"folder (its claim is void {EXPIRES:.0f} s after its last sign of life)"
            )
        return found, folder

    with _held(take_it):
        yield


@contextmanager
def claimed_first(folders: Iterable[Path], is_taken: Callable[[Path], bool]) -> Iterator[Path]:
    """Own the first folder that is neither used nor owned by a live run, and yield it."""

    def take_one() -> tuple[Claim, Path]:
        for folder in folders:
            if is_taken(folder) or isinstance(found := take(folder), Owner):
                continue
            if not is_taken(folder):  # a run may have ended there in between
                return found, folder
            found.release()
        raise UserError("all folders are in use")

    with _held(take_one) as folder:
        yield folder


@contextmanager
def claimed_unless_made(
    product: Path, what: str, is_made: Callable[[], bool] | None = None
) -> Iterator[bool]:
    """Own the folder of a product unless that exists; yield whether to make it now.

    If another live run owns the folder, wait for it and say so in one line. If that run dies, this
    one makes the product.

    Args:
        product: The file that is written last in its folder.
        what: Its name in that line.
        is_made: Returns whether it exists; None checks for the file.
    """
    is_made = is_made or product.is_file
    claims: list[Claim] = []
    waited_for: list[Owner] = []

    def look() -> bool | None:
        if is_made():
            return False
        found = take(product.parent)
        if isinstance(found, Owner):
            _say_once(waited_for, found, what)
            return None
        claims.append(found)
        return not is_made()  # it may exist since the first check

    try:
        # Short checks, shared by all processes: one long wait would exceed the timeout of their
        # process group.
        while (to_make := distributed.on_rank_0(look)) is None:
            time.sleep(POLL)
        if not to_make:
            _release(claims)
        yield to_make
    finally:
        _release(claims)


def is_claimed(folder: Path) -> bool:
    """Return whether a live run owns a folder."""
    owner = read(folder, max(claims_in(folder), default=0))
    return owner is not None and owner.is_live


@contextmanager
def _held(take_one: Callable[[], tuple[Claim, _T] | None]) -> Iterator[_T]:
    """Take a claim in rank 0, share the outcome with all processes, and release it at the end.

    Args:
        take_one: Returns None to be asked again soon.
    """
    claims: list[Claim] = []

    def take_and_keep() -> _T | None:
        taken = take_one()
        if taken is None:
            return None
        claims.append(taken[0])
        return taken[1]

    try:
        while (found := distributed.on_rank_0(take_and_keep)) is None:
            time.sleep(POLL)
        yield found
    finally:
        _release(claims)


def _release(claims: list[Claim]) -> None:
    while claims:
        claims.pop().release()


def _say_once(said: list[Owner], owner: Owner, what: str, how: str = "makes it in") -> None:
    if owner.is_here:
        raise UserError(f"{what}: this run itself {how} {owner.path.parent} already")
    if not said:
        err.print(f"{what}: waiting for {owner}, which {how} {owner.path.parent}")
        said.append(owner)
