"""From the labels of shards, which are texts, to classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kd_core.errors import UserError, nearest
from torch import Tensor

from kd_cls.data.shards.table import ShardTable

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
            _check_kinds(table, texts)
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


def class_numbers(table: ShardTable, classes: Classes, part: str) -> Tensor:
    """Return the class of each sample, int64 [N].

    Labels are names of classes if all that occur are names; otherwise they are numbers.

    Raises:
        UserError: If a label is not a class; names a sample that has it.
    """
    texts, where = np.unique(table.labels, return_inverse=True)
    names = classes.names
    number = {name: n for n, name in enumerate(names)}
    by_name = classes.given is not None and all(str(text) in number for text in texts)
    if not by_name:
        _check_kinds(table, texts)
    values = []
    for text in map(str, texts):
        value = number.get(text, -1) if by_name or not _is_number(text) else int(text)
        if not 0 <= value < len(names):
            known = nearest(text, names) if not _is_number(text) else ""
            raise UserError(
                f"{_first(table, text)}: label {text!r} of this {part} sample is not one of the "
                f"{len(names):,} classes{known or f' 0 to {len(names) - 1}'}"
            )
        values.append(value)
    return torch.tensor(values, dtype=torch.int64)[torch.from_numpy(where.reshape(-1))]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _check_kinds(table: ShardTable, texts: Iterable[str]) -> None:
    """Reject numbers beside names."""
    numbers = [str(text) for text in texts if _is_number(text)]
    others = [str(text) for text in texts if not _is_number(text)]
    if numbers and others:
        raise UserError(
            f"{_first(table, others[0])}: label {others[0]!r} is not a number, but others are, "
            f"such as {numbers[0]} of {_first(table, numbers[0])}; correct it, or name the "
            "file of labels: data.label_key"
        )


def _first(table: ShardTable, text: str) -> str:
    return table.name(int(np.flatnonzero(table.labels == text)[0]))
