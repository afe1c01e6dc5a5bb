"""Read re-identification data: your own folders or CSV file, or the layout of Market-1501."""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from kd_core.data.image_files import USUAL_ENDINGS, require_image
from kd_core.data.image_listing import LeftOut, entries_of, is_hidden, list_images
from kd_core.errors import UserError, nearest

from kd_reid.data.records import Record, Splits, split

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
DISTRACTOR = "0000"
"""Identity of Market-1501's distractors, images of other people or of nobody."""
_MARKET_NAME = re.compile(r"(-1|\d+)_c(\d+)")
_JUNK = "-1"
_COLUMNS = ("path", "identity", "camera")  # of a CSV file; the last may be missing


def read_splits(
    source: str | Path,
    *,
    camera: str | None = None,
    train_fraction: float = 0.5,
    seed: int = 0,
) -> Splits:
    """Read any set; one without the layout of Market-1501 is split by `split`.

    Args:
        source: Of `read_market` or `read_own`.
        camera: See `read_own`.
        train_fraction: Share of the identities to train on, in your own set.
        seed: Chooses them.

    Raises:
        UserError: If the set cannot be read or split.
    """
    if not is_market(source):
        return split(read_own(source, camera), train_fraction=train_fraction, seed=seed)
    if camera is not None:
        raise UserError(f"{source}: its file names have cameras already; leave camera out")
    return read_market(source)


def is_market(source: str | Path) -> bool:
    """Return whether a folder has the layout of Market-1501, or parts of it."""
    return any(Path(source, name).is_dir() for name in MARKET_FOLDERS.values())


def read_own(source: str | Path, camera: str | None = None) -> list[Record]:
    """Read your own set: a CSV file, see `read_csv`, or folders, see `read_folder`.

    Args:
        source: The file or the folder.
        camera: Where the path below an identity's folder has the camera; for folders only.

    Raises:
        UserError: If it cannot be read.
    """
    if Path(source).suffix.lower() != ".csv":
        return read_folder(source, camera)
    if camera is not None:
        raise UserError(f"{source}: a CSV file has a column for cameras; leave camera out")
    return read_csv(source)


def read_market(root: str | Path) -> Splits:
    """Read a folder in the layout of Market-1501; junk, of identity -1, is left out.

    The distractors of its gallery stay: each is a wrong match for every query.

    Args:
        root: Holds `bounding_box_train`, `query` and `bounding_box_test`, with names such as
            `0002_c1s1_000451_03.jpg` (identity 0002, camera 1).

    Raises:
        UserError: If a folder is missing or empty, or the name of an image has another form.
    """
    folders = {part: _require(Path(root) / name) for part, name in MARKET_FOLDERS.items()}
    return Splits(**{part: _market_records(folder) for part, folder in folders.items()})


def read_folder(root: str | Path, camera: str | None = None) -> list[Record]:
    r"""Read a folder that holds a folder of images for each identity, of any depth.

    Args:
        root: Folder of the set.
        camera: Regular expression whose only group is the camera, such as `cam(\d+)`. It is
            searched in the path below the identity's folder. None: cameras are not known.

    Raises:
        UserError: If there are no images, the expression is wrong, or an image does not match it.
    """
    folder, pattern = _require(Path(root)), _pattern(camera)
    left_out, records = LeftOut(), list[Record]()
    for entry in entries_of(folder):
        if is_hidden(entry.name) or not entry.is_dir():
            left_out.add("hidden" if is_hidden(entry.name) else "in no folder", entry.name)
            continue
        inner = Path(entry.path)
        for path in map(Path, list_images(inner, left_out)):
            records.append(Record(str(path), inner.name, _camera(path, inner, pattern)))
    left_out.tell(folder)
    if not records:
        raise UserError(
            f"{folder}: wanted a folder for each identity, {folder}/<identity>/<images>, got none "
            f"with images in it; images end in {USUAL_ENDINGS}, ..."
        )
    return sorted(records)


def read_csv(file: str | Path) -> list[Record]:
    """Read a list of images: columns `path`, `identity` and, if known, `camera`, with a header.

    Args:
        file: Comma-separated, in UTF-8. Paths start from its folder. Other columns are ignored.

    Raises:
        UserError: If the file or a column is missing, a cell is empty, or a path is repeated.
    """
    file = Path(file)
    if not file.is_file():
        found = [other.name for other in file.parent.glob("*.csv")]
        raise UserError(f"{file}: there is no such file{nearest(file.name, found)}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:  # Excel writes a byte order mark
            rows = csv.DictReader(lines)
            columns = _columns(file, rows.fieldnames or ())
            records = [_record(file, rows.line_num, row, columns) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV file in UTF-8 ({error})") from error
    if not records:
        raise UserError(f"{file}: no images in it, only the header")
    records.sort()
    for one, other in pairwise(records):
        if one.path == other.path:
            raise UserError(f"{file}: {one.path} is listed twice; list each image once")
    return records


def require_files(records: Iterable[Record]) -> None:
    """Reject missing images, before any work starts.

    Raises:
        UserError: Names the first of them.
    """
    odd = [record.path for record in records if not Path(record.path).is_file()]
    if odd and os.path.lexists(odd[0]):
        require_image(odd[0])  # the error says what it is
    if odd:
        raise UserError(f"{odd[0]}: there is no such image ({len(odd)} are missing)")


def _require(folder: Path) -> Path:
    if not folder.is_dir():
        found = [entry.name for entry in folder.parent.glob("*/")]
        raise UserError(f"{folder}: there is no such folder{nearest(folder.name, found)}")
    return folder


def _market_records(folder: Path) -> list[Record]:
    left_out, records = LeftOut(), list[Record]()
    for path in sorted(map(Path, list_images(folder, left_out))):
        match = _MARKET_NAME.match(path.name)
        if match is None:
            raise UserError(
                f"{path}: wanted a name such as 0002_c1s1_000451_03.jpg, which starts with "
                "identity and camera"
            )
        records.append(Record(str(path), *match.groups()))
    left_out.tell(folder)
    if not records:
        raise UserError(f"{folder}: no images in it")
    return [record for record in records if record.identity != _JUNK]


def _pattern(camera: str | None) -> re.Pattern[str] | None:
    try:
        pattern = None if camera is None else re.compile(camera)
    except re.error as error:
        raise UserError(f"camera {camera!r}: not a regular expression ({error})") from error
    if pattern is not None and pattern.groups != 1:
        raise UserError(
            f"camera {camera!r}: wanted one group in brackets, the camera, such as "
            f"'cam(\\d+)'; got {pattern.groups} groups"
        )
    return pattern


def _camera(path: Path, folder: Path, pattern: re.Pattern[str] | None) -> str | None:
    if pattern is None:
        return None
    match = pattern.search(path.relative_to(folder).as_posix())
    if match is None or match[1] is None:
        raise UserError(f"{path}: {pattern.pattern!r} finds no camera in it")
    return match[1]


def _columns(file: Path, found: Sequence[str]) -> list[str]:
    for column in _COLUMNS[:2]:
        if column not in found:
            raise UserError(
                f"{file}: no column {column!r} in its first line, {','.join(found)!r}; wanted "
                f"{','.join(_COLUMNS)}; the camera may be missing"
            )
    return [column for column in _COLUMNS if column in found]


def _record(file: Path, line: int, row: Mapping[str, str | None], columns: Sequence[str]) -> Record:
    cells = {column: (row[column] or "").strip() for column in columns}
    for column, cell in cells.items():
        if not cell:
            raise UserError(f"{file}:{line}: {column} is empty; fill it, or remove the line")
    return Record(str(file.parent / cells["path"]), cells["identity"], cells.get("camera"))
