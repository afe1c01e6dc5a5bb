"""Exported files give the network's logits, or are not written."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.export import main
from kd_cls.exporting import export
from kd_cls.models import build_model
from kd_cls.student import load_student
from kd_core.config.trusted import trusting
from kd_core.errors import UserError
from kd_core.files import checkpoint
from torch import Tensor, nn

NETWORKS = """
import torch
from torch import nn


class Plain(nn.Linear):
    def forward(self, image):
        return super().forward(image.flatten(1))


class Noisy(Plain):
    def forward(self, image):
        return super().forward(image) + torch.rand(1)


class Rigid(Plain):
    def forward(self, image):
        count = int(image.shape[0])  # a trace keeps this number
        return super().forward(image.reshape(count, 192))


def plain(num_classes):
    return Plain(192, num_classes)


def noisy(num_classes):
    return Noisy(192, num_classes)


def rigid(num_classes):
    return Rigid(192, num_classes)
"""


def write_student(folder: Path, network: nn.Module, node: dict[str, Any]) -> Path:
    """Leave what a run on three classes of 8 pixels leaves; returns its folder."""
    data = synthetic(image_size=8, num_classes=3)
    student = Classifier(network, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    facts = ADAPTER.metadata(node, data, student)
    checkpoint.export(network.state_dict(), folder / "student", facts)
    return folder


@pytest.fixture
def run_of(tmp_path, monkeypatch) -> Iterator[Callable[[str], Path]]:
    """Makes a run of one of the user's networks above, which are trusted."""
    (tmp_path / "networks_to_export.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str) -> Path:
        node = {"type": f"networks_to_export.{name}"}
        return write_student(tmp_path / "run", nn.Linear(192, 3), node)

    with trusting(*(f"networks_to_export.{name}" for name in ("plain", "noisy", "rigid"))):
        yield make


@pytest.fixture
def run(run_of) -> Path:
    return run_of("plain")


@pytest.fixture(params=["onnx", "pt2"])
def kind(request) -> str:
    if request.param == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    return request.param


def logits(path: Path, image: Tensor) -> Tensor:
    """Run an exported file."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(image)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def facts_of(path: Path) -> dict[str, Any]:
    """Read what an exported file says about itself."""
    if path.suffix == ".pt2":
        files = {"metadata.json": ""}
        torch.export.load(path, extra_files=files)
        return json.loads(files["metadata.json"])
    import onnx

    return {prop.key: json.loads(prop.value) for prop in onnx.load_model(path).metadata_props}


def test_a_file_takes_normalised_images_in_batches_of_any_size(tmp_path, kind, capsys):
    node = {"type": "kd_cls.models.build_model", "name": "resnet8"}
    run = write_student(tmp_path, build_model("resnet8", num_classes=3), node)
    assert main([str(run), "--format", kind, "--no-latency"]) == 0
    assert f"student.{kind}: 0." in capsys.readouterr().out
    network = load_student(run).network
    for count in (1, 5):
        image = torch.randn(count, 3, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(logits(run / f"student.{kind}", image), network(image))


def test_a_file_with_normalisation_takes_plain_images(run, kind, tmp_path):
    path = tmp_path / f"with.{kind}"
    export(run, path, with_normalization=True)
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        expected = load_student(run)({"image": pixels})
        torch.testing.assert_close(logits(path, pixels / 255), expected)


def test_a_file_says_what_its_user_must_know(run, kind, tmp_path):
    path = tmp_path / f"student.{kind}"
    export(run, path)
    facts = facts_of(path)
    assert facts["classes"] == ["class 0", "class 1", "class 2"]
    assert facts["mean"] == pytest.approx([0.1, 0.2, 0.3])
    assert facts["std"] == pytest.approx([0.4, 0.5, 0.6])
    assert facts["image_size"] == 8
    assert facts["with_normalization"] is False
    assert facts["range"] == "(pixels / 255 - mean) / std"


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_says_how_a_photo_becomes_its_input(run, kind, inside):
    assert (
        main([str(run), "--format", kind, "--no-latency", *["--with-normalization"] * inside]) == 0
    )
    facts, told = facts_of(run / f"student.{kind}"), json.loads((run / "export.json").read_text())
    rule = "shorter side to 8 pixels, bilinear, antialiased; centre crop of 8 x 8 pixels"
    for said in (facts, told):
        assert said["resize"] == f"turned upright as EXIF says; {rule}"
        assert ("mean" in said, "std" in said) == (not inside, not inside)
        assert (said["range"] == "0 to 1") == inside


def test_both_files_are_written_to_the_folder_asked_for(run, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert main([str(run), "--output", str(tmp_path / "new"), "--repeats", "2"]) == 0
    names = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert names == ["export.json", "student.onnx", "student.pt2"]


@pytest.mark.parametrize(
    ("network", "message"), [("noisy", "logits differ"), ("rigid", "batch of 1|cannot be exported")]
)
def test_a_file_that_would_mislead_is_not_written(run_of, kind, network, message):
    run = run_of(network)
    before = sorted(run.iterdir())
    with pytest.raises(UserError, match=message):
        export(run, run / f"student.{kind}")
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_onnx_the_error_says_what_to_install(run, monkeypatch, capsys, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main([str(run), "--format", "onnx"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'kd-cls[export]'" in error
    assert "--format pt2" in error
    assert main([str(run), "--format", "pt2"]) == 0


def test_sizes_and_latencies_are_printed_and_written_beside_the_files(run, kind, capsys):
    options = ["--batch-sizes", "1", "4", "--repeats", "3", "--threads", "1"]
    assert main([str(run), "--format", kind, *options]) == 0
    shown = capsys.readouterr()
    found = json.loads((run / "export.json").read_text())
    file = run / f"student.{kind}"
    assert found["files"][file.name]["bytes"] == file.stat().st_size
    runtimes = ["PyTorch", *(["ONNX Runtime"] if kind == "onnx" else [])]
    assert list(found["latency"]["ms"]) == runtimes
    for sizes in found["latency"]["ms"].values():
        assert list(sizes) == ["1", "4"]
        assert all(0 < one["p50"] <= one["p95"] and one["calls"] == 3 for one in sizes.values())
    assert found["latency"]["threads"] == 1
    assert "1 thread, in turns" in shown.out
    assert all(name in shown.out for name in ("p50, ms", "p95, ms", *runtimes))
    assert "latency: batch 1, " in shown.err  # what it does now


def test_latencies_are_left_out_on_demand(run, capsys):
    assert main([str(run), "--format", "pt2", "--no-latency"]) == 0
    assert "latency" not in json.loads((run / "export.json").read_text())
    assert "p50" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-latency", "--repeats", "3"], "--repeats has no effect beside --no-latency"),
        (["--batch-sizes", "0"], "--batch-sizes: '0': wanted a whole number, 1 or more"),
        (["--repeats", "many"], "--repeats: 'many': wanted a whole number"),
        (["--threads", "100000"], "--threads: '100000': this machine has "),
        (["--seconds", "nan"], "--seconds: 'nan': wanted seconds, above 0"),
        (["--seconds", "-1"], "--seconds: '-1': wanted seconds, above 0"),
    ],
)
def test_options_of_the_latency_are_checked_before_any_work(run, options, message, capsys):
    before = sorted(run.iterdir())
    assert main([str(run), *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(run.iterdir()) == before
