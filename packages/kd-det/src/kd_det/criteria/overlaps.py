"""How far boxes overlap; a box is left, top, right, bottom in the last dimension."""

from torch import Tensor

LEAST_AREA = 1e-6
"""What an area or squared length is at least where it divides, as in the authors' code."""


def area(boxes: Tensor) -> Tensor:
    """Return the areas, [...], of boxes [..., 4]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the areas that boxes share with others; the two are broadcast."""
    first = boxes[..., :2].maximum(others[..., :2])
    last = boxes[..., 2:].minimum(others[..., 2:])
    return (last - first).clamp_min(0).prod(-1)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return intersections over unions; the two are broadcast."""
    shared = intersection(boxes, others)
    return shared / (area(boxes) + area(others) - shared).clamp_min(LEAST_AREA)


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return generalised intersections over unions: less where the boxes are apart.

    Of a box and itself it is 1, without area too, which FCOS predicts: the hull is not enlarged
    where it is subtracted from. The functions of torchvision and fvcore read values back from the
    device.
    """
    shared = intersection(boxes, others)
    union = (area(boxes) + area(others) - shared).clamp_min(LEAST_AREA)
    hull = _hull_sides(boxes, others).prod(-1)
    beyond = (hull - union) / hull.clamp_min(LEAST_AREA)
    return shared / union - beyond


def centre_distance(boxes: Tensor, others: Tensor) -> Tensor:
    """Return squared distances of centres over squared diagonals of the hulls; broadcast."""
    apart = (boxes[..., :2] + boxes[..., 2:] - others[..., :2] - others[..., 2:]) / 2
    diagonal = _hull_sides(boxes, others).square().sum(-1)
    return apart.square().sum(-1) / diagonal.clamp_min(LEAST_AREA)


def _hull_sides(boxes: Tensor, others: Tensor) -> Tensor:
    """Return width and height, [..., 2], of the smallest box around both."""
    last = boxes[..., 2:].maximum(others[..., 2:])
    return last - boxes[..., :2].minimum(others[..., :2])
