"""Paths that a command line names: whether they exist, and which is nearest to a misspelt one."""

from collections.abc import Iterable
from pathlib import Path

from kd_core.errors import UserError, nearest

Suffix = str | tuple[str, ...]
"""Endings of names; `()` is of no file."""


def nearest_path(path: Path, *, suffix: Suffix = "") -> str:
    """Return a hint such as `; did you mean 'resnet20.py'?` for a path that does not exist.

    Args:
        path: Its first part that is missing is compared with what is in the folder above.
        suffix: Of the files that are meant; folders are always.
    """
    while not path.parent.is_dir():
        path = path.parent
    names = [found.name for found in path.parent.iterdir() if _is_meant(found, suffix)]
    return nearest(path.name, names)


def require_paths(what: str, paths: Iterable[str | None], *, suffix: Suffix = "") -> None:
    """Reject files or folders that do not exist, before anything is imported to read them.

    Args:
        what: Said of each, such as "image".
        paths: As the command line names them; None was not given.
        suffix: Of the files that are meant; folders are always.

    Raises:
        UserError: For the first that does not exist.
    """
    for text in paths:
        if text is not None and not Path(text).expanduser().exists():
            hint = nearest_path(Path(text).expanduser(), suffix=suffix)
            raise UserError(f"there is no {what} {text}{hint}")


def _is_meant(found: Path, suffix: Suffix) -> bool:
    hidden = found.name.startswith(".")
    return not hidden and (found.name.endswith(suffix) or found.is_dir())
