"""Which files of a sample are its image and its label."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_core.data.image_files import image_endings
from kd_core.errors import UserError

from kd_cls.data.shards.members import Member

Files = Mapping[str, Member]  # by what follows the first dot of their names, in lower case
_FIELDS = ("label", "cls", "class", "target", "class_id")
_NOTHING = object()  # what a field holds that is not there
_TWICE = object()  # what a field holds that is there twice, which only matters of the label's
_LONGEST = 2**20  # bytes of a file that has a label


class BrokenSampleError(UserError):
    """A sample that cannot be used, while the rest of its shard can."""


@dataclass(frozen=True)
class Wanted:
    """What is read of every sample.

    Args:
        image: Endings of the image, as `jpg;png`; None takes the one image there is.
        label: Ending of the label's file, such as `cls`, or `json:FIELD`; None takes `cls`, or a
            usual field of `json`. A field in another is `json:outer.inner`.
    """

    image: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("image_key", self.image), ("label_key", self.label)):
            if value is not None and not value.strip(" ;.:"):
                raise UserError(f"data.{name} is {value!r}; wanted an ending, such as jpg or cls")
        if self.label == "json":
            raise UserError("data.label_key=json needs the field of the label: json:FIELD")
        ending, colon, _ = (self.label or "").partition(":")
        if colon and ending.strip(" .").lower() != "json":
            raise UserError(
                f"data.label_key is {self.label!r}; only json has fields: {ending}, or json:FIELD"
            )

    def image_of(self, files: Files) -> Member:
        """Return the image of a sample."""
        if self.image is not None:
            endings = [each.strip(" .").lower() for each in self.image.split(";")]
            found = [each for each in endings if each in files][:1]
        else:
            found = [each for each in files if f".{each}" in image_endings()]
        if len(found) != 1:
            raise BrokenSampleError(
                f"it has the images {', '.join(found)}; name one: data.image_key={found[0]}"
                if found
                else f"no image among its files ({', '.join(files) or 'none'})"
            )
        return _sound(files, found[0])

    def label_of(self, files: Files, read: Callable[[Member], bytes]) -> str:
        """Return the label of a sample, as a text."""
        ending, _, field = (self.label or ("cls" if "cls" in files else "json:")).partition(":")
        ending = ending.strip(" .").lower()
        if ending not in files:
            has = ", ".join(files)
            what = f".{ending}" if self.label else ".cls or .json"
            raise BrokenSampleError(f"no label: it has no {what} (it has {has})")
        member = _sound(files, ending)
        if member.size > _LONGEST:
            raise BrokenSampleError(
                f"its .{ending} has {member.size:,} bytes, too many for a label"
            )
        text = _of_json(read(member), field) if ending == "json" else _text(read(member))
        if not text or len(text) > 200 or not text.isprintable():
            raise BrokenSampleError(f"its label is {text[:40]!r}; wanted a class")
        return text


def _sound(files: Files, ending: str) -> Member:
    if files[ending].fault:
        raise BrokenSampleError(f"its .{ending} {files[ending].fault}")
    return files[ending]


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BrokenSampleError("its label is not a text in UTF-8") from error


def _of_json(content: bytes, field: str) -> str:
    try:
        values = json.loads(content, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BrokenSampleError("its .json cannot be read as JSON") from error
    if not isinstance(values, dict):
        raise BrokenSampleError(f"its .json is a {type(values).__name__}; wanted an object")
    found = [field] if field else [name for name in _FIELDS if name in values]
    value = _value(values, found[0]) if len(found) == 1 else _NOTHING
    if value is _TWICE:
        raise BrokenSampleError(f"its .json has a field twice ({found[0]})")
    if value is _NOTHING:
        has = ", ".join(_names(values))[:200]
        raise BrokenSampleError(
            f"its .json has the fields {has}; name that of the label: data.label_key=json:FIELD"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BrokenSampleError(
            f"its label ({found[0]} of .json) is {str(value)[:40]!r}; wanted one class"
        )
    return str(value).strip()


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, in which a field that is there twice has no value."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = Counter(name for name, _ in pairs)
        values |= {name: _TWICE for name, count in names.items() if count > 1}
    return values


def _value(values: Mapping[str, Any], field: str) -> Any:
    """Return what a field holds; `a.b` is the field `b` of `a`, unless one is called `a.b`."""
    while field not in values:
        outer, _, field = field.partition(".")
        values = values.get(outer, _NOTHING)
        if not isinstance(values, dict) or not field:
            return _TWICE if values is _TWICE else _NOTHING
    return values[field]


def _names(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name
