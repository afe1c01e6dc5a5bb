"""Paths of config files: whether a file is there, and which is nearest to a misspelt one."""

from collections.abc import Iterable
from pathlib import Path

from kd_core.errors import UserError
from kd_core.runtime.paths import nearest_path


def file_problem(path: Path) -> str:
    """Return why a path is not a config file and which file is nearest; "" if it is one."""
    if path.is_file():
        return "" if path.suffix == ".py" else f"{path}: a config file is a python file, *.py"
    if path.is_dir() and path != Path():
        return f"{path} is a folder, not a config file"
    if path.exists() and path != Path():
        return f"{path} is a pipe or a device, not a config file"
    if path.is_symlink():
        return f"{path} is a link that leads to no file"
    return f"there is no config file {path}{nearest_path(path, suffix='.py')}"


def require_configs(paths: Iterable[str | Path]) -> None:
    """Reject paths that are not config files, before anything is imported to read them.

    Raises:
        UserError: For the first such path.
    """
    for path in paths:
        if problem := file_problem(Path(path).expanduser()):
            raise UserError(problem)
