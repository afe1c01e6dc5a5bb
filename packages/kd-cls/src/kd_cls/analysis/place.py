"""Where the picture of an analysis goes."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from kd_core.errors import UserError
from kd_core.runtime.console import err
from kd_core.runtime.system_errors import cannot_write

FOLDER = "analysis"


def picture_path(given: str | None, name: str, models: Sequence[str]) -> Path:
    """Return the PNG file of an analysis, before any work.

    Args:
        given: What `--out` names; None takes `analysis/NAME.png` in the folder of the first model
            that is a finished run, or `NAME.png` in the working folder if none is.
        name: Of the analysis.
        models: Texts of the models.

    Raises:
        UserError: If it is not the name of a PNG file, or cannot be written.
    """
    folders = [folder for folder in map(_run_folder, models) if folder is not None]
    if given is not None:
        path = Path(given).expanduser()
    else:
        path = folders[0] / FOLDER / f"{name}.png" if folders else Path(f"{name}.png")
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UserError(f"--out {path}: wanted the name of a PNG file, such as picture.png")
    _require_writable(path)
    if given is None and len(models) > 1 and folders:
        err.print(
            f"the picture goes into {folders[0]}, the first run's folder; --out names another"
        )
    return path


def _run_folder(model: str) -> Path | None:
    """Return the folder of a finished run; None if the model is not one."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    return path.parent if path.is_file() and path.suffix == ".safetensors" else None


def _require_writable(path: Path) -> None:
    """Reject a file that cannot be written, by trying in the nearest folder that exists."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        told = cannot_write(path, error)
        raise UserError(f"{told}; --out FILE.png names another place") from error
