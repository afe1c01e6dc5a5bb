"""`kd examples`: the files that the tutorials name, for those who have no checkout."""

from pathlib import Path

from kd_core.config.folder import configs_folder, examples_folder
from kd_core.errors import UserError
from kd_core.files.leftovers import write_new


def write_examples(folder: Path) -> dict[str, int]:
    """Write `examples/` and `configs/examples/` into a folder, which is made if it is not there.

    Returns:
        How many files each of the two has. Equal files that are there stay as they are.

    Raises:
        UserError: If a file that is there differs from ours, before anything is written.
        OSError: If the folder cannot be written.
    """
    sources = {"examples": examples_folder(), "configs/examples": configs_folder() / "examples"}
    found = {name: sorted(source.glob("*.py")) for name, source in sources.items()}
    missing = [
        (folder / name / source.name, text)
        for name, files in found.items()
        for source in files
        if _is_missing(folder / name / source.name, text := source.read_text("utf-8"))
    ]
    for target, text in missing:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_new(target, text)
    return {name: len(files) for name, files in found.items()}


def _is_missing(target: Path, text: str) -> bool:
    """Return whether a file is to be written; one of other contents is refused."""
    if not target.exists():
        return True
    if target.is_file() and target.read_bytes() == text.encode():
        return False
    raise UserError(
        f"{target} is there and is not the example of this version; nothing is overwritten: "
        "name another folder (kd examples FOLDER)"
    )
