"""docs/tracking.md: its commands run, and its example follows people through frames."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/tracking.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
(EXAMPLE,) = (text for kind, text in BLOCKS if kind == "python")
COLOURS = {"red": (200, 30, 40), "green": (30, 180, 60), "blue": (40, 60, 220)}
NETWORK = """
from torch import nn


class Colours(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1, bias=False)
        self.fc = nn.Linear(3, num_classes)

    def forward(self, image):
        found = self.body(image).mean((2, 3))
        return (self.fc(found), found) if self.training else found
"""
pytest.importorskip("torchreid")
pytest.importorskip("onnxruntime")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a run whose network embeds crops by their mean colour."""
    import importlib

    from kd_core.config.trusted import trusting
    from kd_core.files import checkpoint
    from kd_reid.embedder import Embedder
    from kd_reid.student import facts_of

    (tmp_path / "network_of_colours.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    name = "network_of_colours.Colours"
    network = importlib.import_module("network_of_colours").Colours(4)
    torch.nn.init.eye_(network.body.weight.data.view(3, 3))
    embedder = Embedder(network, size=(64, 32))
    Path("runs/NAME").mkdir(parents=True)
    facts = facts_of({"type": name}, 4, embedder, (64, 32))
    checkpoint.export(network.state_dict(), Path("runs/NAME/student"), facts)
    with trusting(name):
        yield


def frame_of(people):
    """Return a grey picture of 200 x 120 pixels with people of these colours, and their boxes."""
    pixels, boxes = np.full((120, 200, 3), 128, np.uint8), []
    for colour, left in people:
        pixels[20:100, left : left + 40] = COLOURS[colour]
        boxes.append((left, 20, left + 40, 100))
    return Image.fromarray(pixels), boxes


def test_people_keep_their_numbers(place, capsys):
    from kd_reid import export

    (line,) = (line for line in COMMANDS if "runs/NAME --normalized" in line)
    given = shlex.split(line.partition("reid_export.py")[2])
    assert export.main([*given, "--format", "onnx", "--no-latency"]) == 0
    found = {}
    for name, people in {
        "1.png": [("red", 10), ("green", 80)],
        "2.png": [("green", 60), ("blue", 130), ("red", 5)],
        "3.png": [],
        "4.png": [("blue", 90)],
    }.items():
        picture, found[name] = frame_of(people)
        picture.save(name)
    Path("boxes.json").write_text(json.dumps(found))
    capsys.readouterr()
    names = {}
    exec(compile(EXAMPLE, "docs/tracking.md", "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["1.png [0, 1]", "2.png [1, 2, 0]", "4.png [2]"]
    np.testing.assert_allclose(np.linalg.norm(np.stack(names["tracks"][2]), axis=1), 1, rtol=1e-5)


def test_a_near_pair_is_not_displaced_by_a_far_one():
    """With the gate applied after the assignment alone, both pairs would be lost or wrong."""
    source = EXAMPLE[EXAMPLE.index("def match") : EXAMPLE.index("tracks = []")]
    from scipy.optimize import linear_sum_assignment

    names = {"np": np, "linear_sum_assignment": linear_sum_assignment, "GATE": 0.2}
    exec(source, names)
    angle = np.deg2rad([0, 60, 35, 150])  # of two tracks, then of two boxes
    first, second, near, far = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    # 35 degrees are 0.18 apart, 25 are 0.09; 150 are 1.87 and 90 are 1, so that the cheapest of
    # all assignments takes the nearer box from the second track.
    assert names["match"]([[first], [second]], np.stack([near, far])) == [(1, 0)]


@pytest.mark.parametrize("line", [line for line in COMMANDS if ".pth" in line])
def test_files_of_weights_are_exported(line, tmp_path, monkeypatch):
    from kd_reid import export
    from kd_reid.models import build_model

    monkeypatch.chdir(tmp_path)
    file, *options = shlex.split(line.partition("reid_export.py")[2])
    name = "resnet18" if "resnet18" in options else "osnet_x0_25"
    torch.save({f"module.{k}": v for k, v in build_model(name, 3).state_dict().items()}, file)
    quick = ["--format", "onnx", *(["--repeats", "1"] if "--batch-sizes" in options else [])]
    assert export.main([file, *options, *quick, "--seconds", "1"]) == 0
    assert Path(file).with_suffix(".onnx").is_file()


def test_the_gate_of_one_s_own_cameras_is_printed(place, capsys):
    from kd_reid import evaluate
    from kd_reid.synthetic.people import synthetic_people

    few = {"num_train_ids": 1, "num_test_ids": 4, "num_cameras": 2, "images_per_camera": 2}
    synthetic_people(Path("data/market1501"), image_height=64, **few)
    (line,) = (line for line in COMMANDS if "reid_evaluate" in line)
    assert evaluate.main([*shlex.split(line)[3:], "--workers", "0"]) == 0
    assert "threshold@FPR=0.001" in capsys.readouterr().out


def test_every_command_is_one_that_these_tests_know():
    tools = [shlex.split(line)[2] for line in COMMANDS]
    assert tools == [*["tools/reid_export.py"] * 3, "tools/reid_evaluate.py"]
