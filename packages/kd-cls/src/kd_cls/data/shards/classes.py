"""From the labels of shards, which are texts, to classes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kd_core.errors import UserError, nearest
from torch import Tensor

from kd_cls.data.shards.table import ShardTable

_NUMBERS = re.compile(r"[-+]?[\d.]+([\s,;]+[-+]?[\d.]+)*")
_MOST = 1_000_000  # classes: a larger label is something else


@dataclass(frozen=True)
class Classes:
    """What the config says of classes.

    Args:
        count: Their number.
        given: Their names, in order.
    """

    count: int | None = None
    given: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.given is not None and self.count != len(self.given):
            raise UserError(
                f"data.num_classes is {self.count}, and data.classes names {len(self.given)}; "
                "leave one of them out"
            )

    @property
    def names(self) -> list[str]:
        """Return the names of all classes; those of numbers are the numbers."""
        return (
            list(self.given) if self.given is not None else [str(n) for n in range(self.count or 0)]
        )

    def completed(self, table: ShardTable) -> "Classes":
        """Return these classes, or where nothing is said, those of the training samples.

        Raises:
            UserError: If a number cannot be that of a class.
        """
        if self.given is not None or self.count is not None:
            return self
        texts = np.unique(table.labels)
        if not all(map(_is_number, texts)):
            _check_kinds({str(text): table for text in texts})
            _check_names(table, texts)
            return Classes(given=sorted(map(str, texts)))
        largest = max(texts, key=int)
        if int(largest) >= _MOST:
            raise UserError(
                f"{_first(table, largest)}: label {largest} cannot be the number of a class; name "
                "the file of labels: data.label_key, or data.num_classes"
            )
        return Classes(count=int(largest) + 1)


def class_names(file: str) -> list[str]:
    """Read the names of classes, one a line.

    Raises:
        UserError: If the file cannot be read, or has a name twice.
    """
    try:
        names = [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise UserError(f"data.classes: {file}: cannot be read ({why})") from error
    while names and not names[-1]:
        names.pop()
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or "" in names or twice:
        what = f"{twice[0]!r} is there twice" if twice and twice[0] else "a line is empty"
        raise UserError(f"data.classes: {file}: {what}; wanted the name of a class a line")
    return names


def class_numbers(tables: Mapping[str, ShardTable], classes: Classes) -> dict[str, Tensor]:
    """Return the class of each sample of each part, int64 [N].

    Labels are names of classes if all that occur in any part are names; otherwise they are numbers.

    Raises:
        UserError: If a label is not a class; names a sample that has it.
    """
    found = {p: np.unique(table.labels, return_inverse=True) for p, table in tables.items()}
    names = classes.names
    number = {name: n for n, name in enumerate(names)}
    where = {str(text): tables[part] for part, (texts, _) in found.items() for text in texts}
    by_name = classes.given is not None and where.keys() <= number.keys()
    if not by_name:
        _check_kinds(where)
    known = {t: number.get(t, -1) if by_name or not _is_number(t) else int(t) for t in where}
    for part, (texts, _) in found.items():
        for text in map(str, texts):
            if not 0 <= known[text] < len(names):
                hint = nearest(text, names) if not _is_number(text) else ""
                raise UserError(
                    f"{_first(tables[part], text)}: label {text!r} of this {part} sample is not "
                    f"one of the {len(names):,} classes{hint or f' 0 to {len(names) - 1}'}"
                )
    return {
        part: torch.tensor([known[str(text)] for text in texts], dtype=torch.int64)[
            torch.from_numpy(inverse).flatten()
        ]
        for part, (texts, inverse) in found.items()
    }


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _check_kinds(where: Mapping[str, ShardTable]) -> None:
    """Reject numbers beside names; `where` has a table for each label."""
    numbers = [text for text in where if _is_number(text)]
    others = [text for text in where if not _is_number(text)]
    if numbers and others:
        raise UserError(
            f"{_first(where[others[0]], others[0])}: label {others[0]!r} is not a number, but "
            f"others are, such as {numbers[0]} of {_first(where[numbers[0]], numbers[0])}; correct "
            "it, or name the file of labels: data.label_key"
        )


def _check_names(table: ShardTable, texts: Iterable[str]) -> None:
    """Reject names that nobody gave and that look like numbers: parts, or several classes."""
    if odd := [str(text) for text in texts if _NUMBERS.fullmatch(text)]:
        raise UserError(
            f"{_first(table, odd[0])}: label {odd[0]!r} is not one whole number, nor does it look "
            "like a name; if it is one, name the file of all names: data.classes"
        )


def _first(table: ShardTable, text: str) -> str:
    return table.name(int(np.flatnonzero(table.labels == text)[0]))
