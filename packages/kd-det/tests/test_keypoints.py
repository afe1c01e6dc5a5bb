"""Data sets with keypoints, or with semantic labels, are trained on and evaluated."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.data import DatasetCatalog, MetadataCatalog
from kd_core.errors import UserError
from kd_det.config import read_config
from kd_det.data.evaluators import evaluator_of
from kd_det.data.keypoints import keypoint_metadata, other_side
from kd_det.data.register import register_coco
from kd_det.data.semantics import check_semantics
from kd_det.train import main

NAMES = ["nose", "left_eye", "right_eye", "l_ear", "r_ear"]
MAPS = {"CRITERION": "kd_core.criteria.cwd.CWD"}
MAPS |= {side: "@keypoint_maps" for side in ("STUDENT", "TEACHER")}
SIGMAS = ["TEST.KEYPOINT_OKS_SIGMAS", "[0.05, 0.05, 0.05, 0.05, 0.05]"]


@pytest.fixture
def command(coco, write, tmp_path, monkeypatch):
    """Return a function that trains on images with five keypoints an object."""
    file, images = coco
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 1, "name": "person", "keypoints": NAMES}]
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        one["category_id"], one["num_keypoints"] = 1, 5
        one["keypoints"] = [v for part in range(1, 6) for v in (x + w * part / 6, y + h / 2, 2)]
    name = f"keypoints_{tmp_path.name}"
    sets = {"TRAIN": [name], "TEST": [name]}
    path = write("keypoint_rcnn", {"cwd": MAPS}, DATASETS=sets)
    monkeypatch.chdir(tmp_path)

    def command(*options, changed=content):
        file.write_text(json.dumps(changed))
        given = ["--register", f"{name}={file}:{images}", "--config-file", str(path)]
        return main([*given, "OUTPUT_DIR", "run", *options])

    command.content = content
    return command


def test_a_detector_of_keypoints_is_distilled_and_evaluated(command, capsys, tmp_path):
    assert command(*SIGMAS, "SOLVER.MAX_ITER", "2") == 0
    metrics = [
        json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()
    ]
    assert any("loss_cwd" in line for line in metrics)
    assert any("keypoints/AP" in line for line in metrics)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), "TEST.KEYPOINT_OKS_SIGMAS has 0 values"),
        (("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "6", *SIGMAS), "NUM_KEYPOINTS is 6, but data"),
    ],
)
def test_numbers_of_keypoints_that_differ_are_told_before_training(options, shown, command, capsys):
    assert command(*options) == 2
    assert shown in capsys.readouterr().err


def test_keypoints_without_names_are_told_before_training(command, capsys):
    category = {"id": 1, "name": "person"}
    assert command(*SIGMAS, changed={**command.content, "categories": [category]}) == 2
    assert "have no list `keypoints` of names" in capsys.readouterr().err


def test_left_and_right_change_places():
    found = keypoint_metadata([{"keypoints": NAMES}, {"name": "car"}])
    assert found["keypoint_flip_map"] == [("left_eye", "right_eye"), ("l_ear", "r_ear")]
    for name, other in {"eye.L": "eye.R", "LeftHip": "RightHip", "collar": "collar"}.items():
        assert other_side(name) == other
    assert keypoint_metadata([{"keypoints": NAMES}, {"keypoints": NAMES[:2]}]) == {}


@pytest.fixture
def semantic(coco, tmp_path):
    """Register the images with labels of four classes; return the name of the set."""
    _, images = coco
    rng, name = np.random.default_rng(0), f"semantic_{tmp_path.name}"
    records = []
    for file in sorted(images.glob("*.png")):
        labels = tmp_path / f"labels_{file.name}"
        Image.fromarray(rng.integers(0, 4, (64, 80), dtype=np.uint8)).save(labels)
        record = {"file_name": str(file), "sem_seg_file_name": str(labels), "image_id": file.stem}
        records.append({**record, "height": 64, "width": 80})
    DatasetCatalog.register(name, lambda: records)
    kind = {"evaluator_type": "sem_seg", "ignore_label": 255}
    MetadataCatalog.get(name).set(stuff_classes=list("abcd"), **kind)
    yield name
    DatasetCatalog.remove(name)


def test_a_semantic_model_is_distilled_and_its_evaluator_is_that_of_its_kind(
    semantic, write, tmp_path
):
    from detectron2.evaluation import SemSegEvaluator
    from kd_det.trainer import DistillationTrainer

    term = {"CRITERION": "kd_core.criteria.cwd.CWD", "STUDENT": "@sem_logits"}
    terms = {"cwd": {**term, "TEACHER": "@sem_logits"}}
    path = write("semantic_fpn", terms, DATASETS={"TRAIN": [semantic], "TEST": []})
    cfg = read_config(path, ["OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_ITER", "2"])
    check_semantics(cfg, training=True)
    trainer = DistillationTrainer(cfg)
    before = trainer.distiller.network.sem_seg_head.predictor.weight.clone()
    trainer.train()
    assert not torch.equal(before, trainer.distiller.network.sem_seg_head.predictor.weight)
    assert isinstance(evaluator_of(cfg, semantic, tmp_path), SemSegEvaluator)


def test_panoptic_data_has_several_evaluators(coco, semantic, write, tmp_path, capsys):
    meta = MetadataCatalog.get(semantic)
    del meta.evaluator_type
    meta.set(evaluator_type="coco_panoptic_seg", json_file=str(coco[0]))
    found = evaluator_of(read_config(write("panoptic_fpn")), semantic, tmp_path)
    names = {type(one).__name__ for one in found._evaluators}
    assert {"SemSegEvaluator", "COCOEvaluator"} <= names
    told = "PQ is not computed" in capsys.readouterr().err
    assert told is ("COCOPanopticEvaluator" not in names)


@pytest.mark.parametrize(("key", "value"), [("NUM_CLASSES", 5), ("IGNORE_VALUE", 0)])
def test_a_semantic_head_must_fit_its_data(key, value, semantic, coco, write):
    path = write("semantic_fpn", DATASETS={"TRAIN": [semantic], "TEST": []})
    cfg = read_config(path, [f"MODEL.SEM_SEG_HEAD.{key}", value])
    with pytest.raises(UserError, match=f"SEM_SEG_HEAD.{key} is {value}, but data set"):
        check_semantics(cfg, training=True)
    check_semantics(cfg, training=False)
    register_coco(f"boxes_{semantic}", *coco)
    cfg.DATASETS.TEST = (f"boxes_{semantic}",)
    with pytest.raises(UserError, match="has no semantic labels"):
        check_semantics(cfg, training=False)
