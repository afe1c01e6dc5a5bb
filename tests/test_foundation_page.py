"""docs/foundation.md: its commands run, on a few images and with tiny networks."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_cls import train
from kd_cls.models import build_model
from kd_cls.student import load_student
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/foundation.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## A folder of images in, a student out")[2].partition("\n## ")[0]
COMMANDS = [shlex.split(line) for line in re.findall(r"^uv run (.*)$", SECTION, re.MULTILINE)]
QUICK = ["data.image_size=8", "data.batch_size=8", "trainer.epochs=2", "trainer.loggers=[]"]


def network(name):
    return f"{{'_delete_':True,'type':'kd_cls.models.build_model','name':{name!r}}}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Photos, and a teacher's weights for 1000 classes."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    for number in range(16):
        path = tmp_path / "data/photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    torch.save(build_model("resnet8", num_classes=1000).state_dict(), "teacher.pth")


def test_the_commands_of_the_page_make_students_from_a_folder_of_images(folder):
    tiny = [f"teacher.network={network('resnet8')}", f"student.network={network('resnet8')}"]
    outputs = []
    for tool, *arguments in COMMANDS:
        assert tool == "tools/cls_train.py"
        given = arguments if "--cfg-options" in arguments else [*arguments, "--cfg-options"]
        assert train.main([*given, *QUICK, *tiny, "teacher.weights=teacher.pth"]) == 0
        folder = Path(arguments[arguments.index("--work-dir") + 1])
        assert json.loads((folder / "result.json").read_text())["last"]["effective_rank"] > 0
        outputs.append(load_student(folder)({"image": torch.rand(2, 3, 8, 8)}).shape)
    assert outputs == [(2, 64), (2, 1000)]


def test_the_page_names_every_measure():
    from kd_cls.adapter import ADAPTER

    measured = ("knn", "linear", "agreement", "cosine", "relative_error", "cka", "effective_rank")
    assert set(measured) < set(ADAPTER.headings)
    assert [name for name in measured if f"`{name}`" not in SECTION] == []
