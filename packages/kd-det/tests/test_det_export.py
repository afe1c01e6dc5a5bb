"""An exported detector finds what the detector finds, or it is not written."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from kd_core.errors import UserError
from PIL import Image

pytest.importorskip("detectron2")
pytest.importorskip("onnxruntime")
import kd_det  # noqa: F401  before Detectron2
from kd_det.config import read_config
from kd_det.deploy.agreement import compare
from kd_det.deploy.detecting import detect, load_detecting
from kd_det.deploy.traceable import Traceable, require_deployable
from kd_det.export import main
from kd_det.networks.detector import build_detector

FORMATS = ("ts", "onnx")


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of a finished run, to which files are added."""

    def copy(kind):
        return shutil.copytree(finished_run(kind), tmp_path / kind)

    return copy


@pytest.fixture
def pixels():
    """A picture of another shape than those that are traced."""
    return np.random.default_rng(1).integers(0, 256, (57, 91, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "mask_rcnn", "cascade_rcnn"])
def test_both_files_find_what_the_detector_finds_in_a_picture_of_another_size(
    run, pixels, kind, capsys
):
    folder = run(kind)
    assert main([str(folder), "--no-latency"]) == 0
    assert "0 differ from PyTorch's" in capsys.readouterr().out
    wanted = detect(load_detecting(folder, None, ()), pixels, 0.0)
    assert len(wanted) > 2
    for ending in FORMATS:
        file = folder / f"student.{ending}"
        found = detect(load_detecting(file, None, ()), pixels, 0.0)
        assert compare(parts(found), parts(wanted), 91).holds
        described = json.loads((folder / f"{file.name}.json").read_text())
        assert described["input"]["channels"] == "BGR"
        assert described["input"]["height"] == "any"
        assert (described["input"]["shorter_side"], described["input"]["longest_side"]) == (64, 96)
        assert list(described["outputs"])[3:] == ["masks"] * (kind == "mask_rcnn")
        assert described["categories"] == {
            "names": ["red", "[b]green[/b]", "blue"],
            "ids": [1, 2, 7],
        }
        assert described["check"]["objects"] > 3
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # As anybody would run it.
    session = onnxruntime.InferenceSession(folder / "student.onnx", options)
    assert [one.name for one in session.get_inputs()] == [described["input"]["name"]]
    assert [one.name for one in session.get_outputs()] == list(described["outputs"])
    boxes, scores, *_ = session.run(None, {"image": np.zeros((3, 64, 70), dtype=np.float32)})
    assert boxes.shape == (len(scores), 4)


def test_keypoints_are_refused_as_onnx_before_anything_is_written(write, tmp_path, capsys):
    config, folder = write("keypoint_rcnn"), tmp_path / "files"
    torch.save({"model": build_detector(read_config(config)).state_dict()}, tmp_path / "w.pth")
    given = [str(config), "--weights", str(tmp_path / "w.pth"), "--output", str(folder)]
    assert main(given) == 2
    assert "goes to TorchScript alone" in capsys.readouterr().err
    assert not folder.exists()


def parts(found):
    names = ("pred_masks",) if found.has("pred_masks") else ()
    more = [found.get(name).float().flatten(1).mean(1) for name in names]
    return [found.pred_boxes.tensor, found.scores, found.pred_classes, *more]


def test_a_file_that_finds_anything_else_is_not_left_behind(run, monkeypatch, capsys):
    folder = run("retinanet")
    whole = Traceable.forward

    def moved(self, image):
        boxes, *others = whole(self, image)
        return (boxes + float(image.mean()), *others)  # a number in the trace, not a tensor

    monkeypatch.setattr(Traceable, "forward", moved)
    assert main([str(folder), "--no-latency", "--format", "torchscript"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "student.ts is not written" in line
    assert "no counterpart" in line
    assert "--size HEIGHT WIDTH" in line
    assert [file.name for file in folder.iterdir() if "student" in file.name] == []


def test_what_depends_on_the_size_can_be_exported_for_one_size(run, pixels, monkeypatch, capsys):
    folder, whole = run("retinanet"), Traceable.forward

    def scaled(self, image):
        boxes, *others = whole(self, image)
        return (boxes / int(image.shape[1]), *others)

    monkeypatch.setattr(Traceable, "forward", scaled)
    arguments = [str(folder), "--no-latency", "--format", "torchscript"]
    assert main(arguments) == 2
    assert main([*arguments, "--size", "64", "80"]) == 0
    assert "images of 64 x 80 alone" in capsys.readouterr().out
    monkeypatch.undo()
    assert main([*arguments, "--size", "64", "96"]) == 0
    found = detect(load_detecting(folder / "student.ts", None, ()), pixels, 0.3)
    assert len(found) > 3
    corners = found.pred_boxes.tensor
    assert corners[:, 2].max() <= 91
    assert corners[:, 3].max() <= 57
    assert corners[:, 2:].max() > 60  # in pixels of the picture, not of the file's image


def test_a_detector_that_finds_nothing_cannot_be_compared(run, tmp_path, capsys):
    options = ["--no-latency", "--opts", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.9999"]
    assert main([str(run("retinanet")), *options]) == 2
    assert "finds nothing in the 5 pictures" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/student*"))


def test_pictures_of_the_user_are_compared_and_latencies_shown(run, pixels, tmp_path, capsys):
    Image.fromarray(pixels).save(tmp_path / "one.png")
    given = ["--images", str(tmp_path / "one.png"), "--repeats", "3", "--threads", "1"]
    assert main([str(run("retinanet")), "--format", "torchscript", *given]) == 0
    said = capsys.readouterr().out
    assert "in 4 pictures" in said
    assert "1 thread, in turns" in said
    numbers = json.loads((tmp_path / "retinanet/export.json").read_text())
    assert set(numbers["latency"]["ms"]) == {"PyTorch", "TorchScript"}
    assert numbers["latency"]["ms"]["PyTorch"]["1"]["calls"] == 3


def test_only_the_formats_that_are_asked_for_are_written_of_a_config_and_weights(run, tmp_path):
    folder = run("retinanet")
    weights = (folder / "model_final.pth").rename(tmp_path / "other.pth")
    given = [
        str(folder / "config.yaml"),
        "--weights",
        str(weights),
        "--output",
        str(tmp_path / "x"),
    ]
    assert main([*given, "--no-latency", "--format", "torchscript"]) == 0
    names = {file.name for file in (tmp_path / "x").iterdir()}
    assert names == {"student.ts", "student.ts.json", "export.json"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "tensorrt"], "invalid choice: 'tensorrt'"),
        (["--size", "8", "64"], "'8': wanted pixels, from 32"),
        (["--repeats", "3", "--no-latency"], "--repeats has no effect beside --no-latency"),
        (["--opts", "MODEL.DEVICE"], "'MODEL.DEVICE' has no value"),
        (["--opts", "MODEL.DEVISE", "cpu"], "no key MODEL.DEVISE; did you mean 'DEVICE'"),
        (["--weights", "model_finl.pth"], "no file of weights model_finl.pth"),
        (["--opts", "INPUT.FORMAT", "L"], "INPUT.FORMAT is 'L'"),
        (["--opts", "MODEL.RETINANET.NUM_CLASSES", "4"], "does not fit RetinaNet"),
    ],
)
def test_a_mistake_is_one_line(finished_run, options, said, capsys):
    given = [*options, *([] if "--no-latency" in options else ["--no-latency"])]
    if "--opts" in given:
        given = ["--no-latency", *options]
    assert main([str(finished_run("retinanet")), *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_folder_without_a_run_names_those_in_it(finished_run, capsys):
    folder = finished_run("retinanet")
    assert main([str(folder.parent), "--no-latency"]) == 2
    assert str(folder) in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_packages_that_onnx_needs_are_named_before_any_work(
    finished_run, monkeypatch, capsys, missing
):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main([str(finished_run("retinanet")), "--no-latency"]) == 2
    assert "pip install 'kd-det[export]'" in capsys.readouterr().err


def test_other_networks_are_refused():
    from detectron2.modeling import PanopticFPN, ProposalNetwork, SemanticSegmentor

    for kind in (PanopticFPN, ProposalNetwork, SemanticSegmentor):
        network = kind.__new__(kind)
        torch.nn.Module.__init__(network)
        with pytest.raises(UserError, match=f"{kind.__name__} cannot be deployed here"):
            require_deployable(network)


class TestComparison:
    BOXES = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 70]])
    SCORES, CLASSES = torch.tensor([0.5, 0.5]), torch.tensor([0, 1])

    def holds(self, boxes=None, scores=None, classes=None, other=None):
        given = [
            v if w is None else w
            for v, w in zip(self.wanted(), (boxes, scores, classes), strict=True)
        ]
        one = torch.zeros(len(given[1]))
        more = one if other is None else other
        return compare([*given, more], [*self.wanted(), torch.zeros(2)], 100).holds

    def wanted(self):
        return [self.BOXES, self.SCORES, self.CLASSES]

    def test_equal_objects_in_another_order_are_equal(self):
        assert self.holds()
        assert self.holds(self.BOXES.flip(0), self.SCORES.flip(0), self.CLASSES.flip(0))

    def test_any_other_box_score_class_or_mask_is_a_difference(self):
        assert not self.holds(boxes=self.BOXES + 0.1)
        assert not self.holds(scores=self.SCORES + 0.01)
        assert not self.holds(classes=self.CLASSES + 1)
        assert not self.holds(other=torch.tensor([0.0, 0.1]))
        assert not self.holds(other=torch.full((2,), torch.nan))
        assert not self.holds(boxes=self.BOXES * torch.nan)

    def test_a_missing_or_a_second_object_is_a_difference(self):
        assert not self.holds(self.BOXES[:1], self.SCORES[:1], self.CLASSES[:1])
        assert not self.holds(self.BOXES[[0, 0]], self.SCORES, self.CLASSES[[0, 0]])
        nothing = [value[:0] for value in self.wanted()]
        assert not compare(self.wanted(), nothing, 100).holds
        assert compare(nothing, nothing, 100).holds
