"""Files that a tool will make: refused before any work if they cannot be."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from kd_core.errors import UserError
from kd_core.runtime.system_errors import cannot_write


def require_new(paths: Iterable[Path], option: str = "--out") -> None:
    """Reject files that are there already, or that cannot be written.

    Args:
        paths: Of the files.
        option: That names another place.

    Raises:
        UserError: For the first such file.
    """
    for path in paths:
        if os.path.lexists(path):
            raise UserError(f"{path}: is there already; name another file with {option}")
        require_writable(path, option)


def require_writable(path: Path, option: str = "--out") -> None:
    """Reject a file that cannot be written, by trying in the nearest folder that exists.

    Args:
        path: Of the file.
        option: That names another place.

    Raises:
        UserError: If it is a folder, or nothing can be written there.
    """
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; wanted the name of a file")
    _try_writing(path, path.absolute().parent, f"{option} FILE{path.suffix}")


def require_writable_folder(path: Path, option: str) -> None:
    """Reject a folder in which nothing can be written, or that cannot be made; see above.

    Args:
        path: Of the folder.
        option: That names another place.

    Raises:
        UserError: If it is one.
    """
    _try_writing(path, path.absolute(), f"{option}=FOLDER")


def _try_writing(path: Path, folder: Path, remedy: str) -> None:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{cannot_write(path, error)}; {remedy} names another place") from error


def require_suffix(path: Path, suffix: str, option: str = "--out") -> None:
    """Reject what is not the name of a file of this kind.

    Args:
        path: Of the file.
        suffix: Such as ".png".
        option: That names it.

    Raises:
        UserError: If it ends otherwise, or is a folder.
    """
    if path.suffix.lower() != suffix or path.is_dir():
        kind = suffix[1:].upper()
        raise UserError(f"{option} {path}: wanted the name of a {kind} file, such as name{suffix}")
