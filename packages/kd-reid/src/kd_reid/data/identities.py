"""Whose images are in a folder: by the folder of each identity, or by the names of the files."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from kd_core.data.image_files import USUAL_ENDINGS
from kd_core.data.image_listing import LeftOut, list_images
from kd_core.errors import UserError

from kd_reid.data.names import MARKET_NAME, identity_meaning
from kd_reid.data.parts import part_in_name
from kd_reid.data.reading import Reading, option
from kd_reid.data.records import DISTRACTOR, Record, in_order

_LIKE_A_CAMERA = re.compile(r"cam(era)?[\s_-]*[0-9]+", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+")


def read_people(folder: Path, reading: Reading, part: str | None = None) -> list[Record]:
    """Read the images of a part of a set, or of a set without parts.

    Args:
        folder: Holds a folder for each identity, or images with names as in Market-1501.
        reading: What the user says.
        part: Which part it is; None if it is a whole set.

    Returns:
        The images; a camera is None where neither `reading` nor the name of the file says it.

    Raises:
        UserError: If there are no images, or it is not clear whose they are.
    """
    left_out = LeftOut()
    paths = [Path(path) for path in list_images(folder, left_out)]
    if reading.identity is not None:
        records = [_by_expression(path, path.relative_to(folder), reading) for path in paths]
    elif nested := {path: path.relative_to(folder) for path in paths if path.parent != folder}:
        _check_folders(folder, {inner.parts[:-1] for inner in nested.values()})
        for path in set(paths) - set(nested):
            left_out.add("in no folder", path.name)
        records = [_by_folder(path, inner, reading) for path, inner in nested.items()]
    else:
        records = _by_names(folder, paths, reading, part)
    left_out.print(folder)
    return in_order(records)


def _by_names(
    folder: Path, paths: Sequence[Path], reading: Reading, part: str | None
) -> list[Record]:
    """Read images that are in no folder of their own."""
    if part and not paths:
        raise UserError(f"{folder}: no images in it; they end in {USUAL_ENDINGS}, ...")
    matches = [MARKET_NAME.match(path.name) for path in paths]
    other = next((path for path, match in zip(paths, matches, strict=True) if not match), None)
    if other is None and paths:
        if reading.camera is not None:
            raise UserError(f"{folder}: its file names have cameras already; leave camera out")
        found = [match.groups() for match in matches if match]
        return [
            Record(str(path), name if name.strip("0") else DISTRACTOR, camera)
            for path, (name, camera) in zip(paths, found, strict=True)
        ]
    if part:
        raise UserError(
            f"{other}: wanted a name such as 0002_c1s1_000451_03.jpg, which starts with "
            "identity and camera, or a folder for each identity; other names: "
            f"{option('identity', 'REGEX')}"
        )
    raise UserError(
        f"{folder}: wanted a folder for each identity, {folder}/<identity>/<images>, got none "
        f"with images in it; images end in {USUAL_ENDINGS}, ..."
    )


def _by_folder(path: Path, inner: Path, reading: Reading) -> Record:
    """Read an image in its identity's folder."""
    identity = inner.parts[0]
    below = inner.relative_to(identity).as_posix()
    return Record(str(path), identity, _camera(path, below, identity, reading))


def _by_expression(path: Path, inner: Path, reading: Reading) -> Record:
    """Read an image whose path has the identity somewhere."""
    text = inner.as_posix()
    identity = _found("identity", path, text, reading.identity_pattern())
    return Record(str(path), identity, _camera(path, text, identity, reading))


def _camera(path: Path, text: str, identity: str, reading: Reading) -> str | None:
    """Return the camera, by the expression or by the name of a file as in Market-1501."""
    if reading.camera is not None:
        return _found("camera", path, text, reading.camera_pattern())
    match = MARKET_NAME.match(path.name)
    if match is None:
        return None
    if identity_meaning(match[1]) == identity_meaning(identity):
        return match[2]
    if _NUMBER.fullmatch(identity) and len(match[1]) >= 4:
        raise UserError(
            f"{path}: its folder says identity {identity!r}, its name {match[1]!r}; say where the "
            f"identity is: {option('identity', 'REGEX')}"
        )
    return None


def _found(what: str, path: Path, text: str, pattern: re.Pattern[str] | None) -> str:
    match = pattern.search(text) if pattern else None
    if pattern and (match is None or not (match[1] or "").strip()):
        raise UserError(f"{path}: {pattern.pattern!r} finds no {what} in it")
    return match[1] if match else ""


def _check_folders(folder: Path, inner: Iterable[tuple[str, ...]]) -> None:
    """Reject folders that are not of identities.

    Raises:
        UserError: If one is named like a part of a set, or all are named like cameras.
    """
    names = sorted(inner)
    for parts in names:
        for depth, name in enumerate(parts[:2]):
            if part_in_name(name):
                place = folder.joinpath(*parts[: depth + 1])
                set_folder = place.parent
                raise UserError(
                    f"{place}: a folder named like a part of a set is not an identity; if "
                    f"{set_folder} is the set, give it as the source; if identities are elsewhere "
                    f"in the path: {option('identity', 'REGEX')}"
                )
    if all(_LIKE_A_CAMERA.fullmatch(parts[0]) for parts in names):
        raise UserError(
            f"{folder / names[0][0]}: folders named like cameras are not identities; say where "
            f"both are in a path below {folder}: {option('identity', 'REGEX')}, and so with camera"
        )
