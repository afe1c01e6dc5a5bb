"""Folders: where a run goes, and that none is overwritten; where generated data is kept."""

import os
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kd_core.errors import UserError
from kd_core.system_errors import cannot_write

_TRACES = ("config.py", "last.pth", "result.json", "summary.json")


def choose(given: str | None, names: Iterable[str], *, resume: bool) -> Path:
    """Return the folder of a run.

    Without a folder given, `runs/<names>` is taken: a new one with a number behind it if a run is
    there already, the newest one with `resume`.

    Raises:
        UserError: If the given folder holds a run and it is not to be resumed.
    """
    if given is not None:
        folder = Path(given)
        if not resume and has_run(folder):
            raise UserError(
                f"--work-dir {folder} holds a run already; add --resume to go on with it, "
                "or name another folder"
            )
        return folder
    stem = "-".join(re.sub(r"\W+", "_", name) for name in names)
    candidates = [Path("runs") / stem]
    while has_run(candidates[-1]):
        candidates.append(Path("runs") / f"{stem}-{len(candidates) + 1}")
    return candidates[-2] if resume and len(candidates) > 1 else candidates[-1]


def has_run(folder: Path) -> bool:
    """Tell whether a folder holds a run, or runs of several seeds."""
    return any(next(folder.glob(f"**/{trace}"), None) for trace in _TRACES)


def cache_folder() -> Path:
    """Return where generated data is kept: `$KD_CACHE`, or else `~/.cache/kd`."""
    try:
        return Path(os.environ.get("KD_CACHE") or "~/.cache/kd").expanduser()
    except RuntimeError as error:
        raise UserError(
            "generated data is kept in ~/.cache/kd, but you have no home folder here; name another "
            "folder in the variable KD_CACHE"
        ) from error


def require_writable(folder: Path) -> None:
    """Refuse, before hours of work, a folder in which nothing can be written; leave no trace.

    Raises:
        UserError: Naming the folder and what the system says of it.
    """
    try:
        made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0" * 2**16)
        finally:
            with suppress(OSError):  # another process works in it by now
                for path in made:
                    path.rmdir()
    except (OSError, ValueError) as error:
        told = cannot_write(folder, error)
        raise told or UserError(f"{str(folder)!r} cannot be a folder ({error})") from error
