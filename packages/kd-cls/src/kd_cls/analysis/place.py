"""Where the picture of an analysis goes."""

from collections.abc import Sequence
from pathlib import Path

from kd_core.files.new_files import require_suffix, require_writable
from kd_core.runtime.console import err

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
    require_suffix(path, ".png")
    require_writable(path)
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
