"""What training does with the segmentation of an object: polygons, or run lengths (RLE)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kd_det.data.coco_file import is_number

_LEAST = 6  # coordinates of a polygon


def mask_problems(
    annotation: Mapping[str, Any], image: Mapping[str, Any] | None, masks: str
) -> Iterator[str]:
    """Yield the kinds of `instance_rules` that a segmentation is of.

    Args:
        annotation: Of COCO.
        image: Its image.
        masks: The format that masks are trained in; "" if only Detectron2's reader sees them.
    """
    segmentation = annotation.get("segmentation")
    if not segmentation:
        if masks:
            yield "missing_masks"
    elif isinstance(segmentation, dict):
        yield from _of_runs(segmentation, image, masks)
    elif isinstance(segmentation, list) and all(map(_is_polygon, segmentation)):
        yield from _of_polygons(segmentation, image, masks)
    else:
        yield "bad_masks"


def _is_polygon(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def _of_polygons(
    polygons: Sequence[Sequence[float]], image: Mapping[str, Any] | None, masks: str
) -> Iterator[str]:
    whole = [one for one in polygons if len(one) % 2 == 0 and len(one) >= _LEAST]
    if not whole:
        yield "lost_polygons"
        return
    if not masks or image is None:
        return
    if len(whole) < len(polygons):
        yield "cut_polygons"
    if all(_is_outside(one, image) for one in whole):
        yield "masks_outside"


def _is_outside(polygon: Sequence[float], image: Mapping[str, Any]) -> bool:
    x, y = polygon[0::2], polygon[1::2]
    return max(x) <= 0 or max(y) <= 0 or min(x) >= image["width"] or min(y) >= image["height"]


def _of_runs(
    segmentation: Mapping[str, Any], image: Mapping[str, Any] | None, masks: str
) -> Iterator[str]:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (_is_size(size) and (isinstance(counts, str) or _is_runs(counts))):
        yield "bad_masks"
        return
    if not masks or image is None:
        return
    if masks == "polygon":
        yield "encoded_masks"
    runs: list[int] | None = _decoded(counts) if isinstance(counts, str) else counts
    if runs is None or not _is_runs(runs):
        yield "bad_masks"
    elif size != [image["height"], image["width"]] or sum(runs) != size[0] * size[1]:
        yield "wrong_mask_sizes"
    elif not sum(runs[1::2]):
        yield "empty_masks"


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_runs(value)


def _is_runs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, int) and is_number(one) and one >= 0 for one in value
    )


def _decoded(text: str) -> list[int] | None:
    """Return the run lengths of COCO's compressed text; None if it is damaged.

    Digits of 5 bits with a sign, the lowest first; from the fourth run on, differences from the
    run two before.
    """
    runs: list[int] = []
    number = shift = 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64:
            return None
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:  # more digits follow
            continue
        if digit & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs if not shift else None
