"""The configs of configs/det/teachers, and the commands that use them, take a step."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("detectron2")
pytest.importorskip("timm")
from kd_det.train import main

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs/det/teachers").glob("*.yaml"))
PAGE = (ROOT / "configs/det/README.md").read_text(encoding="utf-8")
SMALL = {  # students, for a step in seconds
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.DEPTH": "50",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "16",
    "MODEL.RESNETS.WIDTH_PER_GROUP": "4",
    "MODEL.FPN.OUT_CHANNELS": "16",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "16",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "8",
    "MODEL.RETINANET.NUM_CONVS": "1",
}
TEACHERS = {"convnext": "timm:test_convnext", "dinov2": "timm:test_vit"}
SIZES = ["small", pytest.param("whole", marks=pytest.mark.slow)]


def small(path):
    """Return the options that make student and teacher of a config small."""
    teacher = TEACHERS.get(path.stem.rpartition("_")[2])
    options = SMALL | ({"KD.TEACHER.NETWORK": teacher} if teacher else {})
    return [part for pair in options.items() for part in pair]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_teacher_that_is_not_of_detectron2_takes_a_step(path, size, capsys):
    options = small(path) if size == "small" else ["MODEL.WEIGHTS", ""]
    assert main(["--config-file", str(path), "--dry-run", *options]) == 0
    assert "one training step done: " in capsys.readouterr().out
    assert f"`teachers/{path.name}`" in PAGE


def test_the_command_without_labels_trains_a_backbone(tmp_path, monkeypatch):
    (line,) = re.findall(r"^uv run tools/det_train.py (--register-images .*)$", PAGE, re.M)
    (tmp_path / "data/photos").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (64, 48), (90 * number, 60, 30)).save(
            tmp_path / f"data/photos/{number}.jpg"
        )
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    short = ["MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2"]
    short += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "DATALOADER.NUM_WORKERS", "0"]
    short += ["KD.TEACHER.WEIGHTS", "random", "OUTPUT_DIR", "run"]
    dinov2 = next(path for path in CONFIGS if "dinov2" in path.stem)
    assert main([*shlex.split(line), *small(dinov2), *short]) == 0
    assert (tmp_path / "run/model_final.pth").is_file()
