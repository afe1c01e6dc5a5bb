"""Folders that are not code: in a wheel inside `kd_core`, in a checkout at its root."""

from functools import cache
from pathlib import Path

from kd_core.errors import UserError

_NAME = "configs"


@cache
def configs_folder() -> Path:
    """Return the folder that has `cls/`, `det/` and `reid/`.

    Raises:
        UserError: If this installation has none.
    """
    return _folder(_NAME, "cls")


def examples_folder() -> Path:
    """Return the folder of the examples, which the tutorials name.

    Raises:
        UserError: If this installation has none.
    """
    return _folder("examples", "photos.py")


def _folder(name: str, has: str) -> Path:
    """Return the folder of this name, known by a file or folder that it has."""
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    checkout = package.parents[3] / name if len(package.parents) > 3 else inside
    for folder in (inside, checkout):
        if (folder / has).exists():
            return folder
    raise UserError(f"{inside} is missing: this kd-core was built without {name}; reinstall it")


def our_config(text: str | Path) -> Path | None:
    """Return the file of ours that a path such as `configs/cls/data/cifar100.py` means.

    So documented paths, which start at the root of a checkout, hold without one too.

    Args:
        text: The path; None is returned for any that does not begin with `configs/`.
    """
    first, *rest = Path(text).parts or ("",)
    if first != _NAME or ".." in rest:
        return None
    path = configs_folder().joinpath(*rest)
    return path if path.is_file() else None
