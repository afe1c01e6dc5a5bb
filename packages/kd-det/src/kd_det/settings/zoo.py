"""Find the file of a config: a path, or a name of ours or of the model zoo; without torch."""

import importlib.util
import os
from difflib import get_close_matches
from pathlib import Path

from kd_core.config.folder import our_config
from kd_core.errors import UserError
from kd_core.runtime.paths import nearest_path

VARIABLE = "DETECTRON2_CONFIGS"
_ALIKE = 0.6
_FOLDERS = ("COCO-", "LVISv", "Cityscapes/", "PascalVOC-", "Detectron1-", "Misc/", "new_baselines/")
"""How names of the zoo begin."""


def find_config(name: str) -> Path:
    """Return the file that a name means: a path, one of ours, else one of Detectron2's model zoo.

    Args:
        name: Such as `my.yaml`, `faster_rcnn_R_18_FPN_kd` (of `configs/det`) or
            `COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml`.

    Raises:
        UserError: If there is no such file; it names the nearest one.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if ours := our_config(name) or our_config(f"configs/det/{name}.yaml"):
        return ours
    if path.is_dir():
        raise UserError(folder_text(name))
    folder = zoo_folder()
    if folder is not None and not path.is_absolute() and (folder / name).is_file():
        return folder / name
    raise UserError(f"there is no config file {name}{_hint(name, path, folder)}")


def folder_text(name: str) -> str:
    """Return what is wrong with a folder in place of a config, and how its images are named."""
    return (
        f"{name} is a folder, not a config file; to train on its images, register them: "
        f"--register NAME=JSON:{name} with boxes, or --register-images NAME={name} without, and "
        "DATASETS.TRAIN \"('NAME',)\""
    )


def zoo_folder() -> Path | None:
    """Return the folder of the zoo's configs: `$DETECTRON2_CONFIGS`, or that of the package.

    Builds of Detectron2 from source have it; the re-upload of release 0.6 on PyPI does not.

    Raises:
        UserError: If the variable names no folder.
    """
    if chosen := os.environ.get(VARIABLE):
        folder = Path(chosen).expanduser()
        if not folder.is_dir():
            raise UserError(f"{VARIABLE} is {chosen!r}, which is not a folder")
        return folder
    spec = importlib.util.find_spec("detectron2")
    places = (spec.submodule_search_locations or []) if spec else []
    folders = [Path(place) / "model_zoo" / "configs" for place in places]
    return next((folder for folder in folders if folder.is_dir()), None)


def is_of_zoo(path: Path) -> bool:
    """Return whether a file is Detectron2's own."""
    folder = zoo_folder()
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def _hint(name: str, path: Path, folder: Path | None) -> str:
    """Return which names are near, here or in the zoo."""
    if folder is None and name.startswith(_FOLDERS):
        return (
            "; this Detectron2 was installed without the configs of its model zoo: set "
            f"{VARIABLE} to the folder `configs` of its source"
        )
    local = nearest_path(path, suffix=path.suffix or ".yaml")
    if folder is None or ("did you mean" in local and not name.startswith(_FOLDERS)):
        return local
    files = [*folder.rglob("*.yaml"), *folder.rglob("*.py")]
    names = [str(file.relative_to(folder)) for file in files]
    alike = [one for one in names if one.endswith(f"/{name}")]
    alike = alike or get_close_matches(name, names, n=3, cutoff=_ALIKE)
    return f"; did you mean {' or '.join(map(repr, alike[:3]))}?" if alike else local
