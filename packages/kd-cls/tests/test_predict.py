"""One command names the classes of image files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_cls import prediction
from kd_cls.adapter import ADAPTER
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.data.file_options import FileOptions
from kd_cls.models import build_model
from kd_cls.predict import main
from kd_cls.prediction import load_image, predict
from kd_cls.student import size_facts
from kd_core.data.image_files import read_image
from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.files.checkpoint import load_safetensors
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

PROBABILITIES = [0.25, 0.6, 0.15]


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose student gives the same probabilities for every image."""
    network = build_model("resnet8", num_classes=3)
    head = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor(PROBABILITIES).log()
    data = synthetic(image_size=8, num_classes=3)
    data.classes = ("ant", "[bold]bee[/]", "cow")
    node = {"type": "kd_cls.models.build_model", "name": "resnet8"}
    facts = ADAPTER.metadata(node, data, Classifier(network))
    checkpoint.export(network.state_dict(), tmp_path / "run/student", facts)
    return tmp_path / "run"


@pytest.fixture
def image(tmp_path) -> str:
    """A red square between two blue ones."""
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    pixels[:, :, 2] = 255
    pixels[:, 16:32] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return str(tmp_path / "one.png")


def test_classes_come_in_the_order_of_their_probability(run, image):
    found = predict(run, [image])[image]
    assert [prediction.name for prediction in found] == ["[bold]bee[/]", "ant", "cow"]
    assert [prediction.probability for prediction in found] == pytest.approx([0.6, 0.25, 0.15])


def test_json_is_printed_and_nothing_else(run, image, capsys):
    assert main([str(run), image, "--top", "2", "--json"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    assert printed["image"] == image
    assert [found["name"] for found in printed["predictions"]] == ["[bold]bee[/]", "ant"]
    assert printed["predictions"][0]["probability"] == pytest.approx(0.6)


def test_a_table_shows_every_image(run, image, tmp_path, capsys):
    other = str(tmp_path / "two.png")
    Image.new("L", (9, 30)).save(other)
    assert main([str(run / "student.safetensors"), image, other, "--top", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("[bold]bee[/]") == 2
    assert shown.count("0.6000") == 2
    assert "ant" not in shown


def test_the_centre_of_an_image_is_what_the_network_sees(image):
    pixels = load_image(image, 8)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 8, 8)
    assert pixels[0, :, 2:6].eq(255).all()
    assert pixels[1].eq(0).all()


def test_a_photo_is_cropped_as_in_the_evaluation_of_the_run(tmp_path, image):
    data = synthetic(image_size=8, num_classes=2)
    data.shorter_side = 16
    assert size_facts(None, data) == {"image_size": 8, "shorter_side": 16}
    assert size_facts(4, data) == {"image_size": 4, "shorter_side": 8}
    data.shorter_side = 8
    assert size_facts(None, data) == {"image_size": 8}
    reading = FileOptions(image_size=8, resize=16)
    shown = pil_to_tensor(reading.central(read_image(image)))
    torch.testing.assert_close(load_image(image, 8, 16), shown)
    assert not torch.equal(load_image(image, 8), shown)


def test_a_student_of_a_crop_predicts_from_that_crop(run, image, monkeypatch):
    file = run / "student.safetensors"
    state, facts = load_safetensors(file)
    checkpoint.export(state, file.with_suffix(""), {**facts, "shorter_side": "16"})
    seen = []

    def loaded(*given):
        seen.append(given[1:])
        return load_image(*given)

    monkeypatch.setattr(prediction, "load_image", loaded)
    predict(run, [image])
    assert seen == [(8, 16)]


@pytest.mark.parametrize("contents", [None, b"", b"\x89PNG\r\n\x1a\n broken"])
def test_an_image_that_cannot_be_read_is_named(run, image, tmp_path, capsys, contents):
    broken = tmp_path / "broken.png"
    if contents is not None:
        broken.write_bytes(contents)
    assert main([str(run), image, str(broken)]) == 2
    printed = capsys.readouterr()
    assert "broken.png" in printed.err
    assert printed.out == ""


def test_only_images_are_offered_for_one_that_is_missing(run, image, tmp_path, capsys):
    assert main([str(run), str(tmp_path / "two.png")]) == 2
    assert "there is no image" in (said := capsys.readouterr().err)
    assert "one.png" in said
    assert "run" not in said.partition(";")[2]
    assert main([str(run), str(tmp_path / "rum/two.png")]) == 2
    assert "did you mean 'run'?" in capsys.readouterr().err


def test_an_impossible_number_of_classes_is_refused(run, image):
    with pytest.raises(UserError, match="--top 0"):
        predict(run, [image], top=0)


LINEAR = {"type": "torch.nn.Linear", "in_features": 2, "out_features": 2}
CONV = {"type": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 2, "kernel_size": 1}
TWO = {"type": "kd_cls.models.build_model", "name": "resnet8", "num_classes": 2}


@pytest.mark.parametrize(
    ("node", "network", "problem"),
    [
        (LINEAR, torch.nn.Linear(2, 2), "its network fails with an image (RuntimeError: mat1"),
        (CONV, torch.nn.Conv2d(3, 2, 1), "a classifier needs logits [N, C]"),
        (TWO, build_model("resnet8", num_classes=2), "names 3 classes, but its network gives 2"),
    ],
)
def test_a_file_whose_network_does_not_classify_images_is_told(
    run, image, tmp_path, capsys, node, network, problem
):
    _, facts = load_safetensors(run / "student.safetensors")
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    checkpoint.export(state, tmp_path / "odd" / "student", {**facts, "network": json.dumps(node)})
    assert main([str(tmp_path / "odd"), image]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/odd/student.safetensors: ")
    assert problem in line
