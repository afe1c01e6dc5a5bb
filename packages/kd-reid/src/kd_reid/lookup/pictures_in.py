"""The pictures of a folder: which they are, and which of them cannot be decoded."""

import os
from collections.abc import Sequence

from kd_core.data.broken_images import why_broken
from kd_core.data.image_files import USUAL_ENDINGS
from kd_core.data.image_listing import LeftOut, list_images
from kd_core.data.worker_loader import default_workers
from kd_core.errors import UserError
from kd_core.experiment.data_report import read_all
from kd_core.runtime import distributed

_SHOWN = 5  # names of broken pictures in a line


def pictures_in(folder: str, *, skip_broken: bool = False) -> list[str]:
    """Return the paths of a folder's pictures, and of those below it, in the order of names.

    Args:
        folder: Its path; hidden files and those that are not pictures are left out, and counted.
        skip_broken: Whether to decode them all, and to leave out, and name, those that cannot be;
            else the first that is met later is an error.

    Raises:
        UserError: If there are none.
    """
    left_out = LeftOut()
    files = list_images(folder, left_out, skip_broken=skip_broken)
    left_out.print(folder)
    if not files:
        raise UserError(f"{folder}: no pictures in it; wanted files such as {USUAL_ENDINGS}")
    return _sound(folder, files) if skip_broken else files


def names_in(folder: str, files: Sequence[str]) -> list[str]:
    """Return the paths of a folder's pictures that begin with the name of the folder itself.

    Raises:
        UserError: If one cannot be written into a table.
    """
    above = os.path.dirname(os.path.abspath(folder))
    names = [os.path.relpath(os.path.abspath(file), above).replace(os.sep, "/") for file in files]
    for name in names:
        # A table in UTF-8 lacks other bytes, and is read without spaces around its cells.
        if name != name.strip() or name != name.encode("utf-8", "replace").decode():
            raise UserError(
                f"{name!r}: cannot be written into a table, since it begins with a space or is "
                "not text in UTF-8; rename it"
            )
    return names


def _sound(folder: str, files: Sequence[str]) -> list[str]:
    """Leave out and name what cannot be decoded."""
    broken = [file for file, fails in read_all(files, why_broken, default_workers()) if fails]
    if broken:
        names = ", ".join(os.path.relpath(file, folder) for file in broken[:_SHOWN])
        more = f" and {len(broken) - _SHOWN:,} more" if len(broken) > _SHOWN else ""
        distributed.print_note(
            f"{folder}: left out {len(broken):,} of {len(files):,} pictures, which cannot be "
            f"decoded: {names}{more}"
        )
    if len(broken) == len(files):
        raise UserError(f"{folder}: none of {len(files):,} pictures can be decoded")
    lost = set(broken)
    return [file for file in files if file not in lost]
