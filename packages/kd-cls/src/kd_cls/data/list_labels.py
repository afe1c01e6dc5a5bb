"""Labels of an image list: texts, in the order of their names or numbers."""

import re
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Protocol

from kd_core.errors import UserError

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_WHOLE = re.compile(r"-?\d+")


class Placed(Protocol):
    """An entry of a list: its label, and its place."""

    @property
    def label(self) -> str:
        """Return the label as it is written."""

    @property
    def place(self) -> str:
        """Return file and line."""


def check_numbers(entries: Sequence[Placed]) -> None:
    """Reject one number written in two ways, such as `01` and `1`, or `1.0` and `1`.

    Raises:
        UserError: Names both.
    """
    first: dict[Decimal, Placed] = {}
    for entry in entries:
        if not _NUMBER.fullmatch(entry.label):
            continue
        other = first.setdefault(Decimal(entry.label), entry)
        if other.label != entry.label:
            raise UserError(
                f"{entry.place}: the label {entry.label!r} is the same number as {other.label!r} "
                f"({other.place}); labels are texts, so these would be two classes: write one"
            )


def class_order(labels: Collection[str]) -> list[str]:
    """Return the classes in order: by number where all are whole numbers, else by name."""
    if all(_WHOLE.fullmatch(label) for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)
