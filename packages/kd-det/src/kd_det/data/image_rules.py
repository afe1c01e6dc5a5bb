"""Images that Detectron2 cannot read, or would misread; the check and training both ask here."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image
from kd_core.data.image_files import require_image
from kd_core.data.orientation import orientation
from kd_core.errors import UserError
from PIL import Image

_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits begin so
_UNTURNED = (None, 1)


def is_url(file: str) -> bool:
    """Return whether an image is at an address, from which Detectron2 downloads it."""
    return "://" in file


def deep_mode(file: str) -> str:
    """Return Pillow's mode of an image of more than 8 bits a channel; "" for others.

    Detectron2 would cut its values at 255.
    """
    with Image.open(file) as image:
        return image.mode if image.mode.startswith(_DEEP) else ""


def deep_text(mode: str) -> str:
    """Return what is wrong with an image of such a mode, and what to do."""
    what = "floats" if mode.startswith("F") else f"numbers of more than 8 bits ({mode})"
    return f"has {what}, which Detectron2 would cut at 255; save it with 8 bits a channel"


def size_text(file: str, entry: Mapping[str, Any]) -> str:
    """Return what is wrong with an image of another size than its entry says."""
    with Image.open(file) as image:
        turned = orientation(image) not in _UNTURNED
        width, height = image.size
    said = f"{entry['width']} x {entry['height']}"
    if turned and (width, height) == (entry["width"], entry["height"]):
        return (
            f"is {width} x {height}, as the annotation file says, but its EXIF orientation turns "
            f"it; annotate the upright image, or remove its orientation"
        )
    return (
        f"is {width} x {height}{' before it is turned' * turned}, the annotation file says {said}"
    )


def image_problem(file: Path, entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind of problem that training has with an image, "" for none, and what is wrong.

    Args:
        file: The image.
        entry: With `width` and `height`, as the annotation file says.
    """
    if not os.path.lexists(file):
        return "missing_files", ""
    try:
        require_image(str(file))
        if mode := deep_mode(str(file)):
            return "deep_images", deep_text(mode)
        check_image_size(dict(entry), read_image(str(file), "BGR"))
    except SizeMismatchError as error:
        return "wrong_sizes", f"{size_text(str(file), entry)}; {error}"
    except UserError as error:
        return "unreadable_files", str(error).removeprefix(f"{file}: ")
    except Exception as error:  # decoders raise many types
        return "unreadable_files", f"{type(error).__name__}: {error}"
    return "", ""


def missing_images(folder: Path, names: Iterable[str]) -> list[str]:
    """Return which files are not there; folders are listed once, which is fast on a network too."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_folder[os.path.dirname(os.path.join(folder, name))].append(name)
    missing: list[str] = []
    for place, inside in by_folder.items():
        there = set(_listed(place))
        missing += [
            name
            for name in inside
            if os.path.basename(name) not in there and not os.path.lexists(folder / name)
        ]
    return missing


def _listed(folder: str) -> Sequence[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return ()


def require_readable(file: str) -> None:
    """Reject an image that cannot be opened, or whose values Detectron2 would cut.

    Raises:
        UserError: With the file's name.
    """
    if is_url(file):
        return
    require_image(file)
    try:
        mode = deep_mode(file)
    except (OSError, SyntaxError, ValueError):
        return  # Detectron2's reader says what it is
    if mode:
        raise UserError(f"{file}: {deep_text(mode)}")
