"""Runs of the tool whose teacher is not of Detectron2, with boxes and on images without any."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("detectron2")
pytest.importorskip("timm")
from kd_det.train import main

TEACHER = {"NETWORK": "timm:test_convnext", "WEIGHTS": "random"}
TERM = {"CRITERION": "kd_core.criteria.cwd.CWD", "STUDENT": ["@fpn[:4]"], "TEACHER": ["@fpn[:4]"]}


@pytest.fixture
def run(write, coco, tmp_path, monkeypatch):
    """Return a function that runs the tool on the tiny data, and its exit status."""
    json_file, images = coco
    boxes, photos = f"boxes_{tmp_path.name}", f"photos_{tmp_path.name}"
    node = {"TEACHER": TEACHER, "TERMS": {"cwd": TERM}}
    path = write("faster_rcnn", node["TERMS"], KD=node, DATASETS={"TRAIN": [boxes], "TEST": []})
    monkeypatch.chdir(tmp_path)
    sets = ["--register", f"{boxes}={json_file}:{images}"]
    sets += ["--register-images", f"{photos}={images}", "--config-file", str(path)]

    def run(*options, flags=()):
        named = (str(part).replace("BOXES", boxes).replace("PHOTOS", photos) for part in options)
        return main([*sets, *flags, *named])

    run.images, run.path = images, path
    return run


HEADS = {
    "keypoints": [
        *("MODEL.KEYPOINT_ON", True, "MODEL.ROI_HEADS.NUM_CLASSES", 1),
        *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8]),
    ],
    "semantic": ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"],
}
LABEL_FREE = ["DATASETS.TRAIN", "('PHOTOS',)", "KD.TASK_WEIGHT", "0.0"]


def weights(folder, name="model_final"):
    return torch.load(folder / f"{name}.pth", weights_only=True)


def test_a_killed_run_resumes_exactly_and_knows_its_teacher(run, tmp_path, capsys):
    assert run("OUTPUT_DIR", "whole", "SOLVER.CHECKPOINT_PERIOD", 2) == 0
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("config.json", "model_0000001.pth"):  # as a kill after two iterations leaves it
        shutil.copy(tmp_path / "whole" / name, cut)
    (cut / "last_checkpoint").write_text("model_0000001.pth")
    assert run("OUTPUT_DIR", "cut", "SOLVER.CHECKPOINT_PERIOD", 2, flags=["--resume"]) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(cut)
    assert all(torch.equal(resumed["model"][name], one) for name, one in whole["model"].items())
    teacher = ("stages.", "net.", "teacher")
    assert not any(part in name for name in whole["model"] for part in teacher)
    capsys.readouterr()
    other = ["KD.TEACHER.NETWORK", "timm:test_convnext2"]
    assert run("OUTPUT_DIR", "cut", *other, flags=["--resume"]) == 2
    assert "KD.TEACHER.NETWORK is 'timm:test_convnext' there" in capsys.readouterr().err


def test_a_student_learns_from_images_without_boxes(run, tmp_path, capsys):
    assert run(*LABEL_FREE, "OUTPUT_DIR", "free") == 0
    lines = [json.loads(line) for line in (tmp_path / "free/metrics.json").open()]
    assert lines[-1]["total_loss"] > 0
    (mark,) = json.loads((tmp_path / "free/config.json").read_text())["config"][
        "annotations"
    ].values()
    assert len(mark) == 64  # the hash of the folder's files
    assert not any("loss_" in name for name in lines[-1])  # Detectron2 writes one alone as total
    made = weights(tmp_path / "free")
    assert any(name.startswith("roi_heads.") for name in made["model"])  # a whole detector's file
    learnt = "backbone.bottom_up.res2.0.conv1.weight"
    capsys.readouterr()
    file = str(tmp_path / "free/model_final.pth")
    assert run("MODEL.WEIGHTS", file, "OUTPUT_DIR", "boxes", "SOLVER.BASE_LR", "0.0") == 0
    later = weights(tmp_path / "boxes")["model"]
    assert torch.equal(later[learnt], made["model"][learnt])


class TestRefusals:
    @pytest.fixture
    def error(self, run, capsys):
        def error(*options, **more):
            capsys.readouterr()
            assert run(*options, **more) == 2
            return capsys.readouterr().err

        return error

    def test_own_losses_without_boxes(self, error):
        message = error("DATASETS.TRAIN", "('PHOTOS',)")
        assert "set KD.TASK_WEIGHT 0.0, and KD.TERMS" in message

    def test_evaluation_without_boxes(self, error):
        assert "nothing can be evaluated" in error(*LABEL_FREE, "DATASETS.TEST", "('PHOTOS',)")

    def test_a_sampler_that_counts_boxes(self, error):
        sampler = ["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"]
        assert "set TrainingSampler" in error(*LABEL_FREE, *sampler)

    def test_a_mixture(self, error):
        options = ["DATASETS.TRAIN", "('PHOTOS', 'BOXES')", "KD.TASK_WEIGHT", "0.0"]
        assert "has no boxes and" in error(*options)

    def test_a_criterion_that_reads_boxes(self, error):
        fgd = ["KD.TERMS.cwd.CRITERION", "kd_core.criteria.fgd.FGD", "OUTPUT_DIR", "fgd"]
        assert "FGD needs batch['boxes']" in error(*LABEL_FREE, *fgd)

    def test_a_folder_that_is_not_there(self, error):
        message = error(flags=["--register-images", "x=imagse"])
        assert "no such folder of images; did you mean 'images'" in message

    def test_a_folder_without_images(self, error, tmp_path):
        (tmp_path / "none").mkdir()
        assert "has no image files" in error(flags=["--register-images", "x=none"])

    def test_a_folder_without_a_name(self, error):
        assert "wanted NAME=FOLDER" in error(flags=["--register-images", "images"])

    def test_a_network_that_nobody_named(self, run, capsys):
        config = yaml.safe_load(run.path.read_text())
        config["KD"]["TEACHER"]["NETWORK"] = "antigravity.Net"
        run.path.write_text(yaml.safe_dump(config))
        assert run() == 2
        assert "KD.TEACHER.NETWORK: antigravity.Net is Python's own" in capsys.readouterr().err


def test_a_folder_that_changed_is_another_set(run, capsys):
    from kd_det.data.unlabelled import register_images, unlabelled_mark

    name = f"changed_{run.images.parent.name}"
    register_images(name, run.images)
    register_images(name, run.images)
    assert unlabelled_mark(name)
    (run.images / "1.png").write_bytes((run.images / "2.png").read_bytes() + b" ")
    with pytest.raises(Exception, match="is registered already"):
        register_images(name, run.images)


@pytest.mark.skipif("KD_DATA" not in os.environ, reason="KD_DATA names no folder of real data")
def test_real_images_are_learnt_from_a_detector_of_torchvision(write, tmp_path, capsys):
    root = Path(os.environ["KD_DATA"]) / "coco_tiny"
    images = next(root.glob("train*"))
    annotations = root / f"annotations/instances_{images.name}.json"
    name = "torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn"
    term = {"CRITERION": "kd_core.criteria.pkd.PKD", "STUDENT": ["@fpn[3:]"]}
    node = {"TEACHER": {"NETWORK": name, "WEIGHTS": "random"}, "TERMS": {"pkd": term}}
    sizes = {"MIN_SIZE_TRAIN": [128], "MAX_SIZE_TRAIN": 192}
    sets = {"TRAIN": ["real_boxes"], "TEST": []}
    path = write("faster_rcnn", node["TERMS"], KD=node, DATASETS=sets, INPUT=sizes)
    arguments = ["--register", f"real_boxes={annotations}:{images}", "--config-file", str(path)]
    options = ["MODEL.ROI_HEADS.NUM_CLASSES", "80", "OUTPUT_DIR", str(tmp_path / "run")]
    assert main([*arguments, *options]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").open()]
    assert 0 < lines[-1]["loss_pkd"] < 2


@pytest.mark.parametrize("heads", HEADS)
def test_heads_whose_labels_are_not_there_do_not_matter_without_labels(run, heads, tmp_path):
    assert run(*LABEL_FREE, *HEADS[heads], "OUTPUT_DIR", "free", "SOLVER.MAX_ITER", 1) == 0
    assert weights(tmp_path / "free")["iteration"] == 0
