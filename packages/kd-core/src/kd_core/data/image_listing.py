"""Find the image files below folders: what counts, what is left out, what is refused."""

import os
from pathlib import Path

from kd_core.data.image_files import image_endings, require_image
from kd_core.errors import UserError, nearest
from kd_core.runtime import distributed

_OF_SYSTEMS = {
    *("@eadir", "__macosx", "__pycache__", "lost+found", "#recycle", "#snapshot"),
    *("$recycle.bin", "system volume information"),
}
"""Folders that disks, archives and programs leave in a set, in lower case."""


class LeftOut:
    """What a search for images leaves out, by reason: a count and the first name."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one more file or folder."""
        count, first = self.found.get(reason, (0, name))
        self.found[reason] = (count + 1, first)

    def print(self, folder: str | os.PathLike[str]) -> None:
        """Print one line if anything was left out."""
        if not self.found:
            return
        texts = [
            f"{count:,} {reason} ({'such as ' * (count > 1)}{first!r})"
            for reason, (count, first) in self.found.items()
        ]
        distributed.print_note(f"{os.fspath(folder)}: left out {', '.join(texts)}")


def require_folder(folder: Path, expected: str) -> Path:
    """Return the folder if it exists.

    Args:
        folder: Any folder of a data set.
        expected: The layout and how to get it, for the message.

    Raises:
        UserError: Names the first missing part of the path and the nearest name.
    """
    if folder.is_dir():
        return folder
    missing = folder
    while not missing.parent.is_dir():
        missing = missing.parent
    siblings = [entry.name for entry in missing.parent.iterdir() if entry.is_dir()]
    raise UserError(
        f"{folder}: there is no folder {missing.name!r} in {str(missing.parent.absolute())!r}"
        f"{nearest(missing.name, siblings)}; expected {expected}"
    )


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or of a system and not of a data set."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_image(name: str) -> bool:
    """Return whether a file's name ends like that of an image."""
    return os.path.splitext(name)[1].lower() in image_endings()


def list_images(
    folder: str | os.PathLike[str], left_out: LeftOut | None = None, *, skip_broken: bool = False
) -> list[str]:
    """List the image files below a folder, folder by folder, in the order of names.

    Links are followed. Hidden files and folders, and those of systems, are left out, as is every
    file whose name does not end like that of an image.

    Args:
        folder: Any folder.
        left_out: Counts what is left out.
        skip_broken: Whether to leave out image names that are not of files.

    Raises:
        UserError: If an image name is not that of a file (see `require_image`), a folder cannot be
            read, or a link leads back to a folder that it is in.
    """
    left_out = LeftOut() if left_out is None else left_out
    found: list[str] = []
    inside = [(os.fspath(folder), frozenset[str]())]
    while inside:
        here, above = inside.pop()
        real = os.path.realpath(here)
        if real in above:
            raise UserError(
                f"{here}: this link leads back to a folder that it is in; move it elsewhere"
            )
        for entry in entries_of(here):
            if is_hidden(entry.name):
                left_out.add("hidden", entry.name)
            elif entry.is_dir():
                inside.append((entry.path, above | {real}))
            elif is_image(entry.name):
                if skip_broken and not entry.is_file():
                    left_out.add("not files", entry.name)
                    continue
                if not entry.is_file():
                    require_image(entry.path)
                found.append(entry.path)
            else:
                left_out.add("not images", entry.name)
    return sorted(found, key=lambda path: (os.path.dirname(path), path))


def entries_of(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Return what a folder holds, in the order of names.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with os.scandir(os.fspath(folder)) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{os.fspath(folder)}: cannot be read ({error.strerror})") from error
