"""COCO's evaluation counts every object; sets that it would misread are refused before work."""

import copy
import json

import pytest
import torch

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from kd_core.errors import UserError
from kd_det.data.check import check
from kd_det.data.instance_rules import Needs
from kd_det.data.register import check_data, register_coco
from kd_det.trainer import DistillationTrainer


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    """Forget what a test registers."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))


def change(coco, function):
    content = json.loads(coco[0].read_text())
    coco[0].write_text(json.dumps(function(content) or content))
    return json.loads(coco[0].read_text())


@pytest.mark.parametrize("first", [0, 1, "a"])
def test_an_object_whose_id_is_0_or_a_text_is_found_too(first, coco, tmp_path):
    def renumber(content):
        for number, one in enumerate(content["annotations"]):
            one["id"] = f"{first}{number}" if isinstance(first, str) else first + number

    content = change(coco, renumber)
    register_coco("boxes", *coco)
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluator = DistillationTrainer.build_evaluator(cfg, "boxes")
    evaluator.reset()
    for image in content["images"]:
        one = next(a for a in content["annotations"] if a["image_id"] == image["id"])
        x, y, w, h = one["bbox"]
        found = Instances((64, 80))
        found.pred_boxes = Boxes(torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32))
        found.pred_classes = torch.tensor([one["category_id"] - 1])
        found.scores = torch.ones(1)
        evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
    DatasetCatalog.get("boxes")
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


def of_masks():
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ("boxes",)
    return cfg


def polygons(content):
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]


def test_masks_that_the_evaluation_would_misread_are_refused(coco):
    change(coco, polygons)
    register_coco("boxes", *coco)
    check_data(of_masks(), training=False)
    for values, told in (
        ({"iscrowd": 1, "segmentation": None}, "missing_masks"),
        ({"segmentation": [[1, 2, 30, 40]]}, "short_polygons"),  # read as a box
        ({"segmentation": {"size": [80, 64], "counts": [5120]}}, "wrong_mask_sizes"),
    ):
        whole = json.loads(coco[0].read_text())
        change(coco, lambda content, values=values: content["annotations"][3].update(values))
        report = check(*coco, Needs.of(of_masks(), training=False), workers=1)
        assert report[told] == [4]
        with pytest.raises(UserError, match=r"data set 'boxes': .*: 1 \(4\); repair or remove"):
            check_data(of_masks(), training=False)
        coco[0].write_text(json.dumps(whole))


def test_keypoints_need_names_and_sigmas(coco):
    cfg = get_cfg()
    cfg.MODEL.KEYPOINT_ON = True
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 3
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("boxes",)
    unnamed = copy.deepcopy(json.loads(coco[0].read_text()))
    register_coco("boxes", *coco)
    with pytest.raises(UserError, match="'boxes': its categories have no list `keypoints`"):
        check_data(cfg)
    for category in unnamed["categories"]:
        category["keypoints"] = ["nose", "left_eye", "right_eye"]
    for one in unnamed["annotations"]:
        one["keypoints"] = [1, 1, 2] * 3
    coco[0].write_text(json.dumps(unnamed))
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.data.pop("boxes")
    register_coco("boxes", *coco)
    with pytest.raises(UserError, match="KEYPOINT_OKS_SIGMAS has 0 values; the evaluation"):
        check_data(cfg)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.1, 0.1, 0.1]
    with pytest.raises(UserError, match="objects without num_keypoints, which the evaluation"):
        check_data(cfg)
    cfg.DATASETS.TEST = ()
    check_data(cfg)
    assert MetadataCatalog.get("boxes").keypoint_flip_map == [("left_eye", "right_eye")]


def test_an_evaluation_without_data_sets_is_refused():
    cfg = of_masks()
    cfg.DATASETS.TEST = ()
    with pytest.raises(UserError, match=r"DATASETS\.TEST is empty, so nothing is evaluated"):
        check_data(cfg, training=False)


def test_records_of_a_user_that_detectron2_cannot_read_are_one_line():
    from kd_det.data.loader import build_train_loader

    cfg = of_masks()
    cfg.DATASETS.TRAIN = ("mine",)
    DatasetCatalog.register("mine", list)
    with pytest.raises(UserError, match=r"mine: Detectron2 cannot read such data .*is empty") as e:
        build_train_loader(cfg, mapper=dict, seed=0)
    assert "\n" not in str(e.value)
