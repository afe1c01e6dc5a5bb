"""Temporary files and folders, named so that those of killed processes can be removed."""

import re
import shutil
import time
from itertools import count
from pathlib import Path

from kd_core.runtime.processes import Process, this_process

_ENDING = ".tmp"
_LONGEST = 50  # characters of the name that are kept: names may have 255 bytes of UTF-8
_NAME = re.compile(r"\..*\.([0-9a-f]{8})-(\d{1,10})-(\d{1,20})-\d+" + re.escape(_ENDING), re.DOTALL)
_FOREIGN_SECONDS = 86400.0  # after that, those of another machine count as left over
_numbers = count()


def temporary(path: Path) -> Path:
    """Return a new name beside `path` that identifies the writing process."""
    machine, pid, start = this_process()
    own = f"{machine}-{pid}-{start}-{next(_numbers)}"
    return path.with_name(f".{path.name[:_LONGEST]}.{own}{_ENDING}")


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet; if that fails, it is not left there."""
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise


def remove_leftovers(folder: Path, *, inside: bool = False) -> None:
    """Remove temporary files of killed processes; those of live ones stay.

    Those of another machine are removed when nothing was written to them for a day.

    Args:
        folder: Where to look; it need not exist.
        inside: Look in the folders below too.
    """
    for path in folder.glob("**/.*.tmp" if inside else ".*.tmp"):
        if not _is_left_over(path):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_left_over(path: Path) -> bool:
    if not (match := _NAME.fullmatch(path.name)):
        return False
    dead = Process(match[1], int(match[2]), int(match[3])).is_dead
    try:
        return time.time() - path.lstat().st_mtime > _FOREIGN_SECONDS if dead is None else dead
    except OSError:
        return False  # removed in between
