"""docs/photos.md: its commands run, one after the other, and the student sees photos upright."""

import json
import re
import runpy
import shlex
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from kd_cls import export, predict, prediction, train
from kd_core.config.build import build
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/photos.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^ *uv run (.*)$", PAGE, re.MULTILINE)]
TOOLS = {"tools/cls_export.py": export.main, "tools/cls_predict.py": predict.main}
NO_DOWNLOAD = {
    "photos_teacher.py": ["student.network={'type':'timm:test_resnet','pretrained':False}"],
    "photos_student.py": ["teacher.network.type=timm:test_resnet"],
}

QUICK = ["data.image_size=32", "trainer.epochs=14", "trainer.loggers=[]"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")


def run(monkeypatch, tool, arguments):
    if tool.startswith("examples/"):
        monkeypatch.setattr(sys, "argv", [tool, *arguments])
        runpy.run_path(str(ROOT / tool), run_name="__main__")
    elif tool == "tools/cls_train.py":
        name = Path(arguments[0]).name
        options = [*NO_DOWNLOAD[name], *QUICK]
        assert train.main([*arguments, "--cfg-options", *options]) == 0
    else:
        quick = ["--no-latency"] if "export" in tool else []
        assert TOOLS[tool]([*arguments, *quick]) == 0


def test_photos_with_exif_turns_become_a_student_that_sees_them_upright(
    folder, monkeypatch, capsys
):
    pytest.importorskip("timm")
    onnxruntime = pytest.importorskip("onnxruntime")
    for tool, *arguments in COMMANDS:
        run(monkeypatch, tool, arguments)
    told = capsys.readouterr()
    assert "4 classes from runs/photos_teacher" in " ".join(told.err.split())
    result = json.loads(Path("runs/photos_student/result.json").read_text())
    assert result["last"]["top1"] > 90
    photo = COMMANDS[-1][-1]
    assert Image.open(photo).getexif()[0x0112] != 1, "the photo of the page must lie"
    assert prediction.predict("runs/photos_student", [photo])[photo][0].name == "left"
    session = onnxruntime.InferenceSession("runs/photos_student/student.onnx")

    def logits_of(image):
        pixels = np.asarray(ImageOps.fit(image, (32, 32)), np.float32) / 255
        return session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})[0][0]

    lying = Image.open(photo)
    upright = ImageOps.exif_transpose(lying)
    assert ["down", "left", "right", "up"][logits_of(upright).argmax()] == "left"
    assert logits_of(upright).argmax() != logits_of(lying).argmax()
    check_the_code_of_the_page(photo, capsys)


def check_the_code_of_the_page(photo, capsys):
    """Run the page's code; its answers are those of the tool, for a photo that is not square."""
    without, with_this, by_hand, of_folders = (
        textwrap.dedent(code)
        for code in re.findall(r"^ *```python\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    )
    wide, tall = Image.open(photo).size
    assert wide != tall
    found = prediction.predict("runs/photos_student", [photo])[photo]
    capsys.readouterr()
    names = {}
    exec(without, names)
    assert capsys.readouterr().out == f"{found[0].name}\n" == "left\n"
    logits = names["logits"].astype(float)
    given = np.exp(logits - np.logaddexp.reduce(logits)).max()
    assert given == pytest.approx(found[0].probability, abs=1e-4)
    exec(with_this, {})
    assert "Prediction(name='left'" in capsys.readouterr().out
    exec(by_hand.replace(", 64)", ", 32)"), names)  # the test's image_size
    assert names["probabilities"].max().item() == pytest.approx(found[0].probability, abs=1e-4)
    check_the_folders_of_the_page(of_folders)


def check_the_folders_of_the_page(code):
    config = {}
    exec(code, config)
    for part, count in (("train", 4), ("test", 2)):
        for label in ("cat", "ant"):
            (folder := Path(config["data"]["root"], part, label)).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (30, 40), (number, 0, 0)).save(folder / f"{number}.jpg")
    data = build(config["data"], "data", data_seed=0, batch_size=2)
    assert data.classes == ("ant", "cat")
    assert next(data.train.epoch(0))["image"].shape[1:] == (3, 224, 224)
