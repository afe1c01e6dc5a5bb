"""The lists and labels that VeRi-776 has beside its images."""

import re
from collections.abc import Sequence
from pathlib import Path

from kd_core.errors import UserError
from kd_core.runtime import distributed

from kd_reid.data.names import camera_meaning, identity_meaning
from kd_reid.data.records import Record

_LISTS = {"train": "name_train.txt", "query": "name_query.txt", "gallery": "name_test.txt"}
_LABELS = {"train": "train_label.xml", "query": "test_label.xml", "gallery": "test_label.xml"}
_ITEM = re.compile(r"<Item\b([^>]*)>")
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']")


def listed(root: Path, part: str, records: Sequence[Record]) -> list[Record]:
    """Return the images of a part that its list names, where it has one; all where it has none.

    Args:
        root: Folder of the set.
        part: The part, "train", "query" or "gallery".
        records: Its images, by the names of their files.

    Raises:
        UserError: If a listed image is missing, or a label says otherwise than a file's name.
    """
    _check_labels(root / _LABELS[part], records)
    file = root / _LISTS[part]
    if not file.is_file():
        return list(records)
    names = {line.strip() for line in _text(file).splitlines() if line.strip()}
    found = [record for record in records if Path(record.path).name in names]
    missing = sorted(names - {Path(record.path).name for record in found})
    if missing:
        raise UserError(
            f"{file}: {len(missing):,} of {len(names):,} images are not there, such as "
            f"{missing[0]!r}; get them, or move the list elsewhere, and all that is there is read"
        )
    if others := len(records) - len(found):
        distributed.print_note(
            f"{file}: left out {others:,} images of the folder that the list does not name"
        )
    return found


def _check_labels(file: Path, records: Sequence[Record]) -> None:
    """Reject labels that differ from the names of the files.

    Its XML is in GB2312, which Python's parser does not read; its attributes are of one form.
    """
    if not file.is_file():
        return
    items = [dict(_ATTRIBUTE.findall(item)) for item in _ITEM.findall(_text(file))]
    labels = {item.get("imageName", ""): item for item in items}
    for record in records:
        label = labels.get(Path(record.path).name, {})
        identity, camera = label.get("vehicleID"), label.get("cameraID")
        same = identity is None or identity_meaning(identity) == identity_meaning(record.identity)
        if not same or (camera and camera_meaning(camera) != camera_meaning(record.camera or "")):
            raise UserError(
                f"{record.path}: {file.name} says identity {identity!r} and camera {camera!r}, its "
                f"name {record.identity!r} and {record.camera!r}; correct one of them"
            )


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")  # names of images are ASCII
