"""The sheet of predictions shows every box where it is, in the colour of its class."""

import numpy as np
import pytest
import torch
from kd_core.errors import UserError

pytest.importorskip("detectron2")
pytest.importorskip("matplotlib")
import kd_det  # noqa: F401, I001  before Detectron2
from detectron2.structures import BoxMode
from detectron2.structures import Boxes as Corners
from detectron2.structures import Instances
from kd_det.pictures import Boxes, Row, draw_predictions, predicted_boxes, true_boxes
from PIL import Image

GREY = np.full((64, 64, 3), 128, dtype=np.uint8)
NAMES = ["circle", "star"]
NONE = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
ONE = Boxes(np.array([[16.0, 16.0, 48.0, 48.0]]), np.array([1]), np.array([0.75]))
BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # of the first two classes


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def of_colour(found, colour):
    """Return rows and columns of the pixels of a colour, as parts of the picture."""
    where = np.argwhere(np.abs(found - np.array(colour)).max(2) < 12)
    return where / np.array(found.shape[:2])


def test_a_box_is_in_its_column_and_has_the_colour_of_its_class(tmp_path):
    path = tmp_path / "sheet.png"
    draw_predictions([Row(GREY, {"truth": NONE, "student": ONE})], path, NAMES)
    found = pixels(path)
    assert len(of_colour(found, BLUE)) == 0
    rows, columns = of_colour(found, ORANGE).T
    assert (columns.min(), columns.max()) == pytest.approx((0.625, 0.875), abs=0.02)
    height, width = found.shape[0] * np.ptp(rows), found.shape[1] * np.ptp(columns)
    assert width <= height < 1.3 * width  # with the name on top


def test_there_is_a_row_for_each_image(tmp_path):
    heights = []
    for count in (1, 3):
        path = tmp_path / f"{count}.png"
        draw_predictions([Row(GREY, {"truth": NONE, "student": ONE})] * count, path, NAMES)
        heights.append(Image.open(path).height)
    assert heights[1] - heights[0] == pytest.approx(2 * Image.open(path).width / 2, rel=0.02)


def test_scores_are_written_where_there_are_some(tmp_path):
    for name, boxes in (("with", ONE), ("without", ONE._replace(scores=None))):
        draw_predictions([Row(GREY, {"model": boxes})], tmp_path / name, NAMES)
    labels = [len(of_colour(pixels(tmp_path / name), ORANGE)) for name in ("with", "without")]
    assert labels[0] > 1.2 * labels[1]


def test_names_are_no_formulas(tmp_path):
    draw_predictions([Row(GREY, {"a $model_": ONE})], tmp_path / "x.png", ["", "$cost_{ $"])
    assert (tmp_path / "x.png").is_file()


def test_no_rows_and_unlike_rows_are_refused(tmp_path):
    for rows in ([], [Row(GREY, {"a": NONE}), Row(GREY, {"b": NONE})]):
        with pytest.raises(UserError, match="the same columns"):
            draw_predictions(rows, tmp_path / "x.png", NAMES)
    assert list(tmp_path.iterdir()) == []


def test_weak_predictions_are_left_out():
    instances = Instances((64, 64))
    instances.pred_boxes = Corners(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    instances.scores = torch.tensor([0.9, 0.1])
    instances.pred_classes = torch.tensor([1, 0])
    boxes = predicted_boxes(instances, 0.5)
    assert boxes.corners.tolist() == [[1, 2, 3, 4]]
    assert boxes.classes.tolist() == [1]
    assert boxes.scores == pytest.approx([0.9])


def test_true_boxes_are_those_of_a_record_without_crowds():
    one = {"bbox": [10, 20, 5, 6], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 0}
    boxes = true_boxes({"annotations": [one, {**one, "iscrowd": 1}]})
    assert boxes.corners.tolist() == [[10, 20, 15, 26]]
    assert boxes.classes.tolist() == [1]
    assert true_boxes({"annotations": []}).corners.shape == (0, 4)
