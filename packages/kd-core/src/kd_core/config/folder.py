"""The folder of all configs: in a wheel beside the code, in a checkout its `configs/`."""

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
    package = Path(__file__).resolve().parents[1]
    inside = package / _NAME
    checkout = package.parents[3] / _NAME if len(package.parents) > 3 else inside
    for folder in (inside, checkout):
        if (folder / "cls").is_dir():
            return folder
    raise UserError(f"{inside} is missing: this kd-core was built without configs; reinstall it")


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
