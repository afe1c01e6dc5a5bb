"""Read a COCO instances file; what Detectron2 would misread, or fail on, is refused in one line."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kd_core.errors import UserError, nearest

from kd_det.data.formats import is_utf8, of_another_format

_ONE = {"categories": "category", "images": "image", "annotations": "annotation"}
_START = 4096  # bytes that show the format of a file
_INT64 = 2**63


class _Field(NamedTuple):
    """What the value of a key must be."""

    wanted: str
    fits: Callable[[Any], bool]
    required: bool = True


def is_number(value: Any) -> bool:
    """Return whether a value of JSON is a finite number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _INT64 and math.isfinite(value)


def _is_length(value: Any) -> bool:
    return is_number(value) and value >= 1 and value == int(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and is_number(value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


_ID = _Field("a whole number or a text", _is_id)
_FIELDS: dict[str, dict[str, _Field]] = {
    "categories": {"id": _ID, "name": _Field("a text", _is_name)},
    "images": {
        "id": _ID,
        "file_name": _Field("a text", _is_name),
        "height": _Field("pixels, a whole number from 1", _is_length),
        "width": _Field("pixels, a whole number from 1", _is_length),
    },
    "annotations": {
        "id": _ID,
        "image_id": _ID,
        "category_id": _ID,
        "bbox": _Field(
            "[left, top, width, height] in pixels",
            lambda box: isinstance(box, list) and len(box) == 4 and all(map(is_number, box)),
        ),
        "area": _Field("a number", is_number),
        "iscrowd": _Field("0 or 1", lambda v: (is_number(v) and v in (0, 1)) or v in (True, False)),
        "ignore": _Field("0, or no such key", lambda value: value in (0, None), required=False),
        "keypoints": _Field(
            "a list of numbers",
            lambda v: v is None or (isinstance(v, list) and all(map(is_number, v))),
            required=False,
        ),
    },
}
"""Keys of each entry that training and COCO's evaluation read."""


def read_coco(json_file: str | Path) -> dict[str, Any]:
    """Read a COCO instances file.

    Raises:
        UserError: If it is missing, not JSON or of another kind; if an entry lacks a key, has a
            value of another type or the id of another, or names an image or category that does
            not exist; if two categories have one name.
    """
    file = Path(json_file)
    if not file.is_file():
        found = [other.name for other in file.parent.glob("*.json")]
        raise UserError(f"{file}: there is no such annotation file{nearest(file.name, found)}")
    content = _parsed(file)
    for part, fields in _FIELDS.items():
        _check_entries(f"{file}: {part}", content[part], fields)
        if part != "annotations" or "minival" not in str(file):  # as Detectron2: an old COCO file
            _check_ids(f"{file}: {part}", content[part])
    if not content["categories"]:
        raise UserError(f"{file}: its list of categories is empty")
    _check_names(file, content["categories"])
    for key, part in (("image_id", "images"), ("category_id", "categories")):
        _check_references(str(file), content, key, part)
    return content


def _parsed(file: Path) -> dict[str, Any]:
    text = file.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = of_another_format(text[:_START])
        raise UserError(f"{file}: not JSON ({error}){hint}") from error
    if not is_utf8(text):
        raise UserError(
            f"{file}: is not plain UTF-8, in which pycocotools reads it; save it without a "
            "byte-order mark"
        )
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in _FIELDS
    ):
        is_dict = isinstance(content, dict)
        came = f"the keys {', '.join(content)}" if is_dict else type(content).__name__
        raise UserError(
            f"{file}: not a COCO instances file; wanted lists by the keys images, annotations and "
            f"categories, got {came:.200}{of_another_format(text[:_START], content)}"
        )
    return content


def _check_entries(where: str, entries: Sequence[Any], fields: Mapping[str, _Field]) -> None:
    """Reject an entry without a key, or with a value of another type."""
    required = {key for key, field in fields.items() if field.required}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not required <= entry.keys():
            is_dict = isinstance(entry, dict)
            came = f"the keys {', '.join(entry)}" if is_dict else type(entry).__name__
            raise UserError(
                f"{where}[{number}]: wanted the keys {', '.join(sorted(required))}, got {came:.200}"
            )
        for key, field in fields.items():
            if key in entry and not field.fits(entry[key]):
                file, _, part = where.rpartition(": ")
                raise UserError(
                    f"{file}: {key} of {_ONE[part]} {entry['id']!r:.40}: wanted {field.wanted}, "
                    f"got {entry[key]!r:.80}"
                )


def _check_ids(where: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Reject an entry that has the id of another, or an id of another type."""
    seen: dict[Any, int] = {}
    for number, entry in enumerate(entries):
        if seen.setdefault(entry["id"], number) != number:
            raise UserError(
                f"{where}[{number}]: has the id {entry['id']} of {where}[{seen[entry['id']]}]"
            )
    if len({type(entry["id"]) for entry in entries}) > 1:
        raise UserError(f"{where}: some ids are numbers and some are texts; wanted one of the two")


def _check_names(file: Path, categories: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[str, Any] = {}
    for category in categories:
        name = category["name"]
        if name in seen:
            raise UserError(
                f"{file}: the categories {seen[name]} and {category['id']} are both called "
                f"{name!r}; rename or remove one, since results and teachers go by the name"
            )
        seen[name] = category["id"]


def _check_references(where: str, content: Mapping[str, Any], key: str, part: str) -> None:
    known = {entry["id"] for entry in content[part]}
    wrong = [entry for entry in content["annotations"] if entry[key] not in known]
    if wrong:
        raise UserError(
            f"{where}: annotation {wrong[0]['id']} has {key} {wrong[0][key]!r}, which is none of "
            f"the {len(known)} {part} ({len(wrong)} such annotations)"
        )
