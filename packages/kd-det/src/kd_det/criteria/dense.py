"""Dense heads (RetinaNet, FCOS): predictions by anchor, and what criteria ask of such heads."""

from collections.abc import Sequence
from typing import Any

import torch
from kd_core.criteria.criterion import Shapes
from kd_core.errors import UserError
from kd_core.runtime import distributed
from torch import Tensor

_WAY_ON = "or take a method on @fpn, such as PKD"


def by_anchor(levels: Sequence[Tensor], values: int) -> Tensor:
    """Return so many values for every anchor, [N, R, values], of maps [N, A * values, H, W].

    In Detectron2's order: levels, height, width, the anchors of one position.
    """
    rows = [maps.unflatten(1, (-1, values)).permute(0, 3, 4, 1, 2) for maps in levels]
    return torch.cat([row.flatten(1, 3) for row in rows], 1)


def decoded(network: Any, deltas: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """Return boxes [N, R, 4] of predictions of that shape, as the detector itself decodes them."""
    places = torch.cat(tuple(anchors)).expand(len(deltas), -1, -1)
    boxes: Tensor = network.box2box_transform.apply_deltas(
        deltas.flatten(0, 1), places.flatten(0, 1)
    )
    return boxes.view_as(deltas)


def positive_anchors(labels: Tensor, num_classes: int) -> Tensor:
    """Return which anchors have an object, of `gt_labels` [N, R]; see `DetectionDistiller`."""
    return (labels >= 0) & (labels != num_classes)


def mean_count(chosen: Tensor) -> Tensor:
    """Return how many are chosen, the mean over all processes, and at least 1."""
    count = distributed.reduce_sum(chosen.sum().to(torch.float32))
    return (count / distributed.world_size()).clamp_min(1)


def require_labels(name: str, labels: Tensor, anchors: int) -> None:
    """Reject targets of another number of anchors than the heads predict.

    Raises:
        UserError: If the numbers differ.
    """
    if labels.dim() != 2 or labels.shape[1] != anchors:
        raise UserError(
            f"{name}: the heads predict for {anchors} anchors an image, but `gt_labels` is "
            f"{list(labels.shape)}; wanted [images, {anchors}], in the order of the maps: levels, "
            "height, width"
        )


def require_branches(name: str, student: Shapes, teacher: Shapes, role: str) -> None:
    """Reject anything but two branches of a dense head, each a tuple of levels.

    Args:
        name: Of the criterion.
        student: Shapes of the student's taps, one tuple of levels each.
        teacher: Those of the teacher's.
        role: What to tap instead.

    Raises:
        UserError: If the taps are others.
    """
    for side, branches in (("student", student), ("teacher", teacher)):
        nested = all(isinstance(shape, Sequence) for branch in branches for shape in branch)
        if len(branches) != 2 or not nested or len(branches[0]) != len(branches[1]):
            raise UserError(
                f"{name} takes two branches of all levels of a dense head (RetinaNet, FCOS), but "
                f"the {side}'s taps give {branches}; tap {role}"
            )


def require_equal_predictions(
    name: str,
    student: Sequence[Any],
    teacher: Sequence[Any],
    values: int,
    num_classes: int | None = None,
) -> None:
    """Reject branches of logits and boxes that differ, or whose boxes are not of so many values.

    Args:
        name: Of the criterion.
        student: Shapes of the levels of both branches.
        teacher: The same of the teacher.
        values: What is predicted for one box.
        num_classes: What is predicted for the classes of one box, if it is known.

    Raises:
        UserError: If they do not fit.
    """
    own, shown = ([[list(s) for s in branch] for branch in side] for side in (student, teacher))
    if own != shown:
        raise UserError(
            f"{name}: by level the student's logits and boxes are {own}, the teacher's {shown}; "
            f"take detectors of the same classes, anchors and levels, {_WAY_ON}"
        )
    for (logits, *_), (boxes, *_) in zip(*own, strict=True):
        anchors, rest = divmod(boxes, values)
        classes = num_classes or logits // max(anchors, 1)
        if rest or logits != anchors * classes:
            raise UserError(
                f"{name}: {values} values a box do not fit heads of {logits} channels for the "
                f"classes and {boxes} for the boxes; RetinaNet and FCOS predict 4 values a box, "
                "GFL 4 distributions (bins=17: 68 values), tapped by @dense_logits and @dense_boxes"
            )


def require_dense(name: str, network: Any, paths: Sequence[str], role: str) -> None:
    """Reject a network that does not decode boxes as RetinaNet and FCOS do.

    Raises:
        UserError: If it lacks what a criterion needs of it.
    """
    if not hasattr(network, "box2box_transform") or not hasattr(network, "num_classes"):
        raise UserError(
            f"{name} needs a dense detector (RetinaNet, FCOS) on both sides, but "
            f"{type(network).__name__} is another detector, tapped at {list(paths)}; tap {role} "
            f"of two dense detectors, {_WAY_ON}"
        )


def require_equal_anchors(name: str, student: Any, teacher: Any) -> None:
    """Reject two detectors whose classes or anchors differ: predictions would be paired wrongly.

    Raises:
        UserError: If they do.
    """
    if student.num_classes != teacher.num_classes:
        raise UserError(
            f"{name}: the student has {student.num_classes} classes, the teacher "
            f"{teacher.num_classes}; use a teacher of the same classes, {_WAY_ON}"
        )
    sides = _anchors(student), _anchors(teacher)
    if None not in sides and sides[0] != sides[1]:
        raise UserError(
            f"{name} pairs predictions anchor by anchor, but the student's anchors (strides, "
            f"offset, corners) are {sides[0]!s:.120}, the teacher's {sides[1]!s:.120}; give both "
            f"the same MODEL.ANCHOR_GENERATOR, {_WAY_ON}"
        )


def _anchors(network: Any) -> tuple[Any, ...] | None:
    """Return what a detector's anchors are, or None if that is not known."""
    generator = getattr(network, "anchor_generator", None)
    cells = getattr(generator, "cell_anchors", None)
    if cells is None:
        return None
    corners = [[[round(x, 3) for x in cell] for cell in level.tolist()] for level in cells]
    return list(getattr(generator, "strides", ())), getattr(generator, "offset", 0.0), corners
