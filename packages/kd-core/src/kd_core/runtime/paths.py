"""Paths that a command line names: whether they exist, and which is nearest to a misspelt one."""

from collections.abc import Callable, Iterable
from pathlib import Path

from kd_core.errors import UserError, nearest


def nearest_path(
    path: Path, *, suffix: str = "", is_meant: Callable[[str], bool] | None = None
) -> str:
    """Return a hint such as `; did you mean 'resnet20.py'?` for a path that does not exist.

    Args:
        path: Its first part that is missing is compared with what is in the folder above.
        suffix: Of the files that are meant; folders are always.
        is_meant: Of a file's name; then files alone are meant, and folders where one is missing.
    """
    there = path.parent.is_dir()
    while not path.parent.is_dir():
        path = path.parent
    found = [entry for entry in path.parent.iterdir() if _is_meant(entry, suffix)]
    if is_meant is not None:
        found = [e for e in found if (is_meant(e.name) and not e.is_dir() if there else e.is_dir())]
    names = [entry.name for entry in found]
    return nearest(path.name, names)


def require_paths(
    what: str, paths: Iterable[str | None], *, is_meant: Callable[[str], bool] | None = None
) -> None:
    """Reject files or folders that do not exist, before anything is imported to read them.

    Args:
        what: Said of each, such as "image".
        paths: As the command line names them; None was not given.
        is_meant: See `nearest_path`.

    Raises:
        UserError: For the first that does not exist.
    """
    for text in paths:
        if text is not None and not Path(text).expanduser().exists():
            hint = nearest_path(Path(text).expanduser(), is_meant=is_meant)
            raise UserError(f"there is no {what} {text}{hint}")


def _is_meant(found: Path, suffix: str) -> bool:
    hidden = found.name.startswith(".")
    return not hidden and (found.name.endswith(suffix) or found.is_dir())
