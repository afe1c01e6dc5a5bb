"""How a set is to be read, where its files and folders do not say it alone."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kd_core.errors import UserError, nearest

PARTS = ("train", "query", "gallery", "test")
"""Parts of a set; `test` is query and gallery in one, of which queries are chosen."""
Kind = Literal["parts", "test", "people"]
"""Of a set: with parts; with a test part, of which queries are chosen; without parts."""
COLUMNS = ("path", "identity", "camera", "split")
_FLAGS = {"distractors": "--no-distractors"}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a user says of a set.

    Args:
        camera: Regular expression whose only group is the camera; see `read_folder`.
        identity: Likewise the identity, in the path below the part of the set, where it is not
            the name of a folder.
        parts: Folders by the part of the set that they are, one of `PARTS`.
        columns: Names of columns of a CSV file by what they are, one of `COLUMNS`.
        same_camera: Whether images by the same camera are matches too: cameras are not used.
        distractors: Whether identity 0000 is Market-1501's distractors; else it is a person.
    """

    camera: str | None = None
    identity: str | None = None
    parts: Mapping[str, str] | None = None
    columns: Mapping[str, str] | None = None
    same_camera: bool = False
    distractors: bool = True

    def __post_init__(self) -> None:
        _check_keys("parts", self.parts, PARTS)
        _check_keys("columns", self.columns, COLUMNS)

    def refuse(self, source: Path, reason: str, *names: str) -> None:
        """Reject what has no effect on a set.

        Raises:
            UserError: If one of the fields `names` is given.
        """
        for name in names:
            if getattr(self, name) is not None:
                raise UserError(f"{source}: {reason}; leave {name} out")

    def camera_pattern(self) -> re.Pattern[str] | None:
        """Return the expression that finds cameras."""
        return _pattern("camera", self.camera, r"cam(\d+)")

    def identity_pattern(self) -> re.Pattern[str] | None:
        """Return the expression that finds identities."""
        return _pattern("identity", self.identity, r"person(\d+)")


def option(name: str, value: str) -> str:
    """Return how an option is given to the training tool and to the check, for messages."""
    key, _, inner = name.partition(".")
    flag = _FLAGS.get(key, f"--{key.replace('_', '-')}")
    shown = flag if value in ("True", "False") else f"{flag} {inner + '=' if inner else ''}{value}"
    return f"--cfg-options data.{name}={value}, in reid_check {shown}"


def _pattern(name: str, expression: str | None, example: str) -> re.Pattern[str] | None:
    try:
        pattern = None if expression is None else re.compile(expression)
    except re.error as error:
        raise UserError(f"{name} {expression!r}: not a regular expression ({error})") from error
    if pattern is not None and pattern.groups != 1:
        raise UserError(
            f"{name} {expression!r}: wanted one group in brackets, the {name}, such as "
            f"'{example}'; got {pattern.groups} groups"
        )
    return pattern


def _check_keys(name: str, given: Mapping[str, str] | None, valid: Collection[str]) -> None:
    for key in given or {}:
        if key not in valid:
            raise UserError(f"{name}.{key}: there is no such key{nearest(key, valid)}")
