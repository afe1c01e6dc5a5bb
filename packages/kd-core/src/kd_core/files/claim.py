"""Claims: a run owns its folder, and of several runs one makes what they share.

A claim ends with the block that took it, also by an error or Ctrl-C. After a kill it ends by
itself: at once where its process is seen to be dead, and `EXPIRES` seconds after its last sign of
life where that was on another machine. A stopped process (SIGSTOP) keeps its claims. What only
reads needs none.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from kd_core.errors import UserError
from kd_core.files.claim_file import EXPIRES, Claim, Owner, claims_in, read, take
from kd_core.runtime import distributed
from kd_core.runtime.console import err

POLL = 1.0
"""Seconds between looks at what another run makes."""

_T = TypeVar("_T")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Own a folder and all in it inside the block; it is made if need be.

    It goes again if nothing was written to it. With several processes rank 0 claims, and what it
    finds reaches all of them.

    Raises:
        UserError: If another live run owns it, or it cannot be written.
    """

    def take_it() -> tuple[Claim, None]:
        found = take(folder)
        if isinstance(found, Owner):
            raise UserError(
                f"{folder} is in use by another run: {found}; wait until it ends, or name another "
                f"folder (its claim is void {EXPIRES:.0f} s after its last sign of life)"
            )
        return found, None

    with _held(take_it):
        yield


@contextmanager
def claimed_first(folders: Iterable[Path], is_taken: Callable[[Path], bool]) -> Iterator[Path]:
    """Own the first of the folders that is neither taken nor owned by a live run, and give it."""

    def take_one() -> tuple[Claim, Path]:
        for folder in folders:
            if is_taken(folder) or isinstance(found := take(folder), Owner):
                continue
            if not is_taken(folder):  # a run may have ended there just now
                return found, folder
            found.release()
        raise UserError("all folders are taken")

    with _held(take_one) as folder:
        yield folder


@contextmanager
def claimed_unless_made(
    product: Path, what: str, is_made: Callable[[], bool] | None = None
) -> Iterator[bool]:
    """Own the folder of a product that is not there yet; give whether it is to be made now.

    If another live run has the folder, it is waited for, which one line says. If that run dies,
    the product is ours to make.

    Args:
        product: A file that is written last of all in its folder.
        what: It is, for that line.
        is_made: Returns whether it is there; None asks whether the file is.
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
        return not is_made()  # it may be there since the first look

    try:
        # Short looks that all processes share: one long wait would run into the time limit of
        # their process group.
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
def _held(take_one: Callable[[], tuple[Claim, _T]]) -> Iterator[_T]:
    """Take a claim in rank 0, give all processes what comes with it, and release it at the end."""
    claims: list[Claim] = []

    def take_and_keep() -> _T:
        claim, found = take_one()
        claims.append(claim)
        return found

    try:
        yield distributed.on_rank_0(take_and_keep)
    finally:
        _release(claims)


def _release(claims: list[Claim]) -> None:
    while claims:
        claims.pop().release()


def _say_once(said: list[Owner], owner: Owner, what: str) -> None:
    if owner.is_here:
        raise UserError(f"{what}: this very run makes it already, in {owner.path.parent}")
    if not said:
        err.print(f"{what}: waiting for {owner}, which makes it in {owner.path.parent}")
        said.append(owner)
