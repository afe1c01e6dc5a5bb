"""Paths that a command line names: whether they exist, and which is nearest to a misspelt one."""

from collections.abc import Callable, Iterable
from pathlib import Path

from kd_core.errors import UserError, nearest

Suffix = str | tuple[str, ...]
"""Endings of names; `()` is of no file."""
IsFile = Callable[[str], bool]
"""Takes the name of a file; returns whether such a file is meant, and never a folder."""


def nearest_path(path: Path, *, suffix: Suffix = "", is_file: IsFile | None = None) -> str:
    """Return a hint such as `; did you mean 'resnet20.py'?` for a path that does not exist.

    Args:
        path: Its first part that is missing is compared with what is in the folder above.
        suffix: Of the files that are meant; folders are always.
        is_file: In the place of `suffix`, where files alone are meant; a folder of the path that
            is missing is compared with folders.
    """
    there = path.parent.is_dir()
    while not path.parent.is_dir():
        path = path.parent
    found = [entry for entry in path.parent.iterdir() if _is_meant(entry, suffix)]
    if is_file is not None:
        found = [e for e in found if (is_file(e.name) and not e.is_dir() if there else e.is_dir())]
    names = [entry.name for entry in found]
    return nearest(path.name, names)


def require_paths(
    what: str,
    paths: Iterable[str | None],
    *,
    suffix: Suffix = "",
    is_file: IsFile | None = None,
) -> None:
    """Reject files or folders that do not exist, before anything is imported to read them.

    Args:
        what: Said of each, such as "image".
        paths: As the command line names them; None was not given.
        suffix: See `nearest_path`.
        is_file: See `nearest_path`.

    Raises:
        UserError: For the first that does not exist.
    """
    for text in paths:
        if text is not None and not Path(text).expanduser().exists():
            hint = nearest_path(Path(text).expanduser(), suffix=suffix, is_file=is_file)
            raise UserError(f"there is no {what} {text}{hint}")


def _is_meant(found: Path, suffix: Suffix) -> bool:
    hidden = found.name.startswith(".")
    return not hidden and (found.name.endswith(suffix) or found.is_dir())
