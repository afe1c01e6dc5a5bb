"""Identities and cameras of a search as numbers, whatever they come as."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from kd_core.errors import UserError
from torch import Tensor

_NUMBER = re.compile(r"([+-]?)0*(\d+)(?:\.0*)?")
_CAMERA = re.compile(r"(?:c|cam|camera)[ _-]?0*(\d+)", re.IGNORECASE)
_MOST = 2**63 - 1
JUNK = -1
"""Identity of detections that Market-1501 counts neither as correct nor as wrong."""

Label = int | str


class Labels(NamedTuple):
    """Identities and cameras of queries and gallery, int64."""

    query_ids: Tensor  # [Q]
    gallery_ids: Tensor  # [G]
    query_cams: Tensor  # [Q]
    gallery_cams: Tensor  # [G]


def labels_of(
    shape: tuple[int, int],
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    *,
    device: torch.device | str = "cpu",
) -> Labels:
    """Return identities and cameras as numbers; without cameras no image is left out for its own.

    Equal numbers are equal labels: `7`, `7.0`, `"7"` and `"0007"` are one identity, and the cameras
    `1`, `"c1"`, `"c01"` and `"cam1"` are one. Any other text is compared letter by letter.

    Args:
        shape: Number of queries and of gallery images.
        query_ids: Numbers or texts [Q]: a tensor, an array, a list, as the next three.
        gallery_ids: The same, [G].
        query_cams: The same, [Q], or None.
        gallery_cams: The same, [G], or None.
        device: Where the numbers are needed.

    Raises:
        UserError: If a label is missing or neither a whole number nor a text, or counts differ.
    """
    if (query_cams is None) != (gallery_cams is None):
        raise UserError("query_cams and gallery_cams belong together; give both or neither")
    ids = _pair("ids", shape, query_ids, gallery_ids, device)
    if query_cams is None:
        none, all_other = (torch.full((n,), v) for n, v in zip(shape, (0, 1), strict=True))
        return Labels(*ids, none.to(device), all_other.to(device))
    return Labels(*ids, *_pair("cams", shape, query_cams, gallery_cams, device))


def left_out(same: Tensor, query_cams: Tensor, gallery_ids: Tensor, gallery_cams: Tensor) -> Tensor:
    """Return which gallery images do not count for which queries, bool [n, G].

    Those of the query's person by the query's camera, and junk.

    Args:
        same: Whether an image is of the query's identity, bool [n, G].
        query_cams: Cameras of the queries, [n].
        gallery_ids: Identities, [G].
        gallery_cams: Cameras, [G].
    """
    return (same & (query_cams[:, None] == gallery_cams)) | (gallery_ids == JUNK)


def _pair(
    name: str, shape: tuple[int, int], query: Any, gallery: Any, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    sides = [_flat(f"{side}_{name}", v) for side, v in (("query", query), ("gallery", gallery))]
    shapes = [list(side.shape) for side in sides]
    if shapes != [[count] for count in shape]:
        raise UserError(
            f"distance {list(shape)} needs one query and gallery {name} a row and column, "
            f"got {shapes[0]} and {shapes[1]}"
        )
    if all(isinstance(side, Tensor) for side in sides):
        first, second = (side.to(device) for side in sides)
        return first, second
    means = _camera if name == "cams" else _meaning
    plain = [side.tolist() for side in sides]
    named = [
        [means(f"{kind}_{name}", number, value) for number, value in enumerate(side)]
        for kind, side in zip(("query", "gallery"), plain, strict=True)
    ]
    first, second = (torch.tensor(side, device=device) for side in _numbers(*named))
    return first, second


def _flat(name: str, values: Any) -> Any:
    """Return labels as int64 if all are whole numbers, else as an array of objects."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy() if values.dtype != torch.bfloat16 else values.float()
    array = np.asarray(values if isinstance(values, np.ndarray) else _listed(name, values))
    if array.dtype.kind in "fiu":
        return torch.from_numpy(_whole(name, array))
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind not in "UO" and array.size:
        raise UserError(f"{name}: wanted whole numbers or texts, got {array.dtype}")
    return array.astype(object) if array.size else torch.zeros(array.shape, dtype=torch.int64)


def _listed(name: str, values: Any) -> Any:
    """Return a list as it is, not as numpy would write its numbers beside texts."""
    if hasattr(values, "__array__"):  # a column of pandas
        return values
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UserError(f"{name}: wanted a label for each image, got {values!r:.60}")
    listed = list(values)
    if any(isinstance(value, str | bytes) or value is None for value in listed):
        kept = np.empty(len(listed), dtype=object)
        kept[:] = listed
        return kept
    return listed


def _whole(name: str, array: np.ndarray) -> np.ndarray:
    numbers = array.astype(np.int64) if np.isfinite(array).all() else None
    if numbers is None or not np.array_equal(numbers, array):
        raise UserError(f"{name}: wanted whole numbers, or texts; some are not")
    return numbers


def _meaning(name: str, number: int, value: Any) -> Label:
    """Return what a label means: a number where it is one, else the text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip())
        if found is None:
            return _text(name, number, value.strip())
        whole = int(found[2][:30])
        return -whole if found[1] == "-" else whole
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise UserError(f"{name}: number {number} is {value!r:.40}; wanted a whole number or text")
    if value != value or int(value) != value:
        raise UserError(f"{name}: number {number} is {value!r:.40}; wanted a whole number or text")
    return int(value)


def _camera(name: str, number: int, value: Any) -> Label:
    found = _CAMERA.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(found[1][:30]) if found else _meaning(name, number, value)


def _text(name: str, number: int, text: str) -> str:
    if not text:
        raise UserError(f"{name}: number {number} is empty; wanted a whole number or text")
    return text


def _numbers(query: list[Label], gallery: list[Label]) -> tuple[list[int], list[int]]:
    """Return labels of both sides as numbers: themselves if all are, else in the order of names."""
    every = {*query, *gallery}
    if all(isinstance(label, int) and abs(label) <= _MOST for label in every):
        return query, gallery  # type: ignore[return-value]
    order = sorted(every - {JUNK}, key=lambda label: (isinstance(label, str), label))
    number = {label: place for place, label in enumerate(order)} | {JUNK: JUNK}
    return [number[label] for label in query], [number[label] for label in gallery]
