"""docs/unlabelled.md: its commands run, one after the other, with tiny networks."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from kd_cls import export, train

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/unlabelled.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^ *uv run (.*)$", PAGE, re.MULTILINE)]
QUICK = ["data.image_size=32", "trainer.epochs=2", "trainer.loggers=[]"]
TINY = [
    "teacher.network={'_delete_':True,'type':'timm:test_vit','img_size':32,'pretrained':False}",
    "teacher.size=32",
    "teacher.weights=random",
    "student.network.type=timm:test_resnet",
]


def run(monkeypatch, tool, arguments):
    if tool.startswith("examples/"):
        monkeypatch.setattr(sys, "argv", [tool, *arguments])
        runpy.run_path(str(ROOT / tool), run_name="__main__")
    elif tool == "tools/cls_export.py":
        assert export.main([*arguments, "--no-latency"]) == 0
    else:
        given = [text.replace("timm:resnet18", "timm:test_resnet") for text in arguments]
        options = [] if "--cfg-options" in given else ["--cfg-options", *TINY]
        assert train.main([*given, *options, *QUICK]) == 0


def test_images_without_labels_become_a_student_that_is_measured_exported_and_used(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("timm")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    for tool, *arguments in COMMANDS:
        if tool == "examples/similar_photos.py":  # photos of any ending are found
            Path(arguments[1]).with_suffix(".JPEG").write_bytes(Path(arguments[1]).read_bytes())
        capsys.readouterr()
        run(monkeypatch, tool, arguments)
        told = capsys.readouterr().out
        if tool == "examples/similar_photos.py":
            nearest = told.splitlines()
            same = {f"1.000  {Path(arguments[1]).with_suffix(e)}" for e in (".jpg", ".JPEG")}
            assert {*nearest[:2]} == same
            assert len(nearest) == 5
    result = json.loads(Path("runs/unlabelled/result.json").read_text())
    measured = re.findall(r"^   \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert len(measured) == 4
    assert set(measured) <= set(result["last"])
    assert Path("runs/unlabelled/student.onnx").is_file()
    assert json.loads(Path("runs/classifier/result.json").read_text())["last"]["top1"] > 0
