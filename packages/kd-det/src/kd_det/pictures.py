"""Picture of images with the true boxes beside those of several detectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import BoxMode, Instances
from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_path

_INCHES = 2.4  # width of a column
_DOTS = 150  # an inch
_SMALLEST = 600  # pixels of the longer side of a picture of one image, so that names can be read


class Boxes(NamedTuple):
    """Boxes on an image.

    Args:
        corners: Left, top, right and bottom in pixels, [N, 4].
        classes: Numbers of the classes, [N].
        scores: In [0, 1], [N]; None for true boxes.
    """

    corners: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None


class Row(NamedTuple):
    """An image, uint8 [H, W, 3] in RGB, and its boxes by the name of each column."""

    image: np.ndarray
    columns: Mapping[str, Boxes]


def true_boxes(record: Mapping[str, Any]) -> Boxes:
    """Return the boxes of a record of Detectron2's `DatasetCatalog`, without crowds."""
    found = [one for one in record["annotations"] if not one.get("iscrowd", 0)]
    corners = [BoxMode.convert(one["bbox"], one["bbox_mode"], BoxMode.XYXY_ABS) for one in found]
    classes = np.array([one["category_id"] for one in found], dtype=np.int64)
    return Boxes(np.array(corners, dtype=np.float64).reshape(-1, 4), classes)


def predicted_boxes(instances: Instances, min_score: float = 0.4) -> Boxes:
    """Return a model's predictions for an image with at least this score."""
    kept = instances[instances.scores >= min_score].to("cpu")
    corners, scores = kept.pred_boxes.tensor.detach().numpy(), kept.scores.detach().numpy()
    return Boxes(corners, kept.pred_classes.numpy(), scores)


def draw_predictions(rows: Sequence[Row], path: Path, class_names: Sequence[str]) -> None:
    """Draw a PNG: a row for each image, a column for each name (ground truth first, say).

    Every class has its colour; its name and the score are beside the box.

    Args:
        rows: Images with the same columns.
        path: PNG file.
        class_names: Names of the classes, by number.

    Raises:
        UserError: If there are no rows, their columns differ, or matplotlib is missing.
    """
    if not rows or any(list(row.columns) != list(rows[0].columns) for row in rows):
        came = [list(row.columns) for row in rows]
        raise UserError(f"wanted rows with the same columns, at least one; got {came}")
    figure_type, layout_type = _matplotlib()
    names = list(rows[0].columns)
    heights = [_INCHES * row.image.shape[0] / row.image.shape[1] for row in rows]
    size = (_INCHES * len(names), sum(heights) + 0.3)
    narrow = layout_type(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = figure_type(figsize=size, layout=narrow)
    axes = figure.subplots(len(rows), len(names), squeeze=False, height_ratios=heights)
    for row, line in zip(rows, axes, strict=True):
        for name, place in zip(names, line, strict=True):
            _draw(place, row.image, row.columns[name], class_names)
    for name, place in zip(names, axes[0], strict=True):
        place.set_title(name, fontsize=9, parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS)


def draw_detections(
    image: np.ndarray,
    boxes: Boxes,
    path: Path,
    class_names: Sequence[str],
    *,
    masks: np.ndarray | None = None,
) -> None:
    """Draw a PNG of one image in its own size, enlarged if it is small, with boxes and masks.

    Args:
        image: uint8 [H, W, 3] in RGB.
        boxes: On it.
        path: PNG file.
        class_names: Names of the classes, by number.
        masks: Of each box, bool [N, H, W].
    """
    figure_type, _ = _matplotlib()
    from matplotlib import colormaps

    colours = colormaps["tab10"]
    shown = image.astype(np.float32)
    for mask, kind in zip(
        masks if masks is not None else (), boxes.classes, strict=masks is not None
    ):
        shown[mask] = 0.5 * shown[mask] + 127.5 * np.array(colours(int(kind) % colours.N)[:3])
    height, width = image.shape[:2]
    part = max(1, round(_SMALLEST / max(height, width)))
    figure = figure_type(figsize=(part * width / _DOTS, part * height / _DOTS))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    _draw(axes, shown.astype(np.uint8), boxes, class_names)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS)


def _matplotlib() -> tuple[Any, Any]:
    """Return what draws a figure, and what arranges a narrow one."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise UserError("plots need the package matplotlib") from error
    return Figure, ConstrainedLayoutEngine


def _draw(axes: Any, image: np.ndarray, boxes: Boxes, class_names: Sequence[str]) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    colours = colormaps["tab10"]
    for number, (left, top, right, bottom) in enumerate(boxes.corners - 0.5):
        kind = int(boxes.classes[number])
        colour = colours(kind % colours.N)
        score = "" if boxes.scores is None else f" {boxes.scores[number]:.2f}"
        corner, size = (left, top), (right - left, bottom - top)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=2))
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1.2))
        above = top > height / 12  # else the text does not fit
        axes.text(
            min(left, 0.75 * width),
            top if above else bottom,
            class_names[kind] + score,
            fontsize=5,
            color="white",
            verticalalignment="bottom" if above else "top",
            clip_on=True,
            parse_math=False,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6},
        )
