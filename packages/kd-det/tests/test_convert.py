"""Converted ImageNet weights give the features that torchvision's networks give."""

import logging
from pathlib import Path

import pytest
import torch
import torchvision
from kd_core.errors import UserError
from torch import nn

pytest.importorskip("detectron2")

import kd_det  # noqa: F401
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from kd_det.convert import main
from kd_det.networks.architectures import ARCHITECTURES
from kd_det.networks.conversion import convert

CONFIGS = Path(__file__).parents[3] / "configs" / "det"


def classifier(architecture):
    """Return a torchvision network in which every value is random, those of BatchNorm too."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(architecture, weights=None)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.0)
        norm.bias.data.normal_(std=0.1)
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return network.eval()


def detector(architecture):
    """Return a backbone with a pyramid of Detectron2, in the place where a detector has it."""
    cfg = get_cfg()
    name = "MNV2" if architecture == "mobilenet_v2" else "R_18"
    cfg.merge_from_file(str(CONFIGS / f"faster_rcnn_{name}_FPN.yaml"))
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.FPN.OUT_CHANNELS = 4
    if name == "R_18":
        depth = int(architecture.removeprefix("resnet"))
        cfg.MODEL.RESNETS.DEPTH = depth
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    return nn.ModuleDict({"backbone": build_backbone(cfg)})


def maps_of(network, image):
    """Return the maps at strides 4, 8, 16 and 32 of a torchvision network."""
    if isinstance(network, torchvision.models.MobileNetV2):
        stages = [network.features[a:b] for a, b in ((0, 4), (4, 7), (7, 14), (14, 18))]
    else:
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        layers = [network.layer1, network.layer2, network.layer3, network.layer4]
        stages = [nn.Sequential(stem, layers[0]), *layers[1:]]
    maps = {}
    for name, stage in zip(("res2", "res3", "res4", "res5"), stages, strict=True):
        image = maps[name] = stage(image)
    return maps


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "mobilenet_v2"])
@torch.no_grad()
def test_the_features_are_equal(architecture):
    network = classifier(architecture).double()
    with torch.device("meta"):  # without initialising what is loaded
        model = detector(architecture)
    model.load_state_dict(convert(network.state_dict(), architecture), strict=False, assign=True)
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    expected, found = maps_of(network, image), model["backbone"].bottom_up(image)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_of_the_backbone_is_converted(architecture):
    with torch.device("meta"):
        network = torchvision.models.get_model(architecture, weights=None)
        wanted = detector(architecture).state_dict()
    converted = convert(network.state_dict(), architecture)
    shapes = {name: value.shape for name, value in converted.items()}
    assert shapes == {name: v.shape for name, v in wanted.items() if ".bottom_up." in name}


def test_weights_of_another_network_are_refused():
    with torch.device("meta"):
        state = torchvision.models.resnet34(weights=None).state_dict()
    with pytest.raises(UserError, match=r"resnet18: 8\d unexpected \(layer1\.2\.conv1\.weight"):
        convert(state, "resnet18")
    with pytest.raises(UserError, match=r"resnet101: .* missing .* of another shape"):
        convert(state, "resnet101")
    with pytest.raises(UserError, match=r"mobilenet_v2: .* missing \(features\.0\.0\.weight"):
        convert(state, "mobilenet_v2")


def test_a_classifier_of_other_classes_or_none_is_no_hindrance():
    with torch.device("meta"):
        network = torchvision.models.resnet18(weights=None, num_classes=7)
    expected = convert(network.state_dict(), "resnet18").keys()
    network.fc = nn.Identity()
    assert convert(network.state_dict(), "resnet18").keys() == expected


def test_an_unknown_architecture_is_refused():
    with pytest.raises(UserError, match=r"'resnet20'.*did you mean 'resnet50'|'resnet18'"):
        convert({}, "resnet20")


class TestTool:
    @pytest.fixture
    def state(self):
        return classifier("mobilenet_v2").state_dict()

    def run(self, tmp_path, *arguments):
        return main(
            ["--arch", "mobilenet_v2", "--out", str(tmp_path / "out" / "w.pth"), *arguments]
        )

    def test_plain_detectron2_loads_what_it_writes(self, tmp_path, state, caplog, capsys):
        torch.save({"state_dict": state}, tmp_path / "w.pth")
        assert self.run(tmp_path, "--weights", str(tmp_path / "w.pth")) == 0
        assert "INPUT.FORMAT RGB" in capsys.readouterr().out
        model = detector("mobilenet_v2")
        with caplog.at_level(logging.WARNING):
            DetectionCheckpointer(model).load(str(tmp_path / "out" / "w.pth"))
        assert "bottom_up" not in caplog.text
        own = model.state_dict()
        converted = convert(state, "mobilenet_v2")
        assert all(torch.equal(own[name], value) for name, value in converted.items())
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["w.pth"]

    def test_without_a_file_torchvision_s_own_weights_are_taken(self, tmp_path, state, monkeypatch):
        wanted = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
        asked = []

        def give(self, **options):
            asked.append((self, options["weights_only"], options["check_hash"]))
            return state

        monkeypatch.setattr(type(wanted), "get_state_dict", give)
        assert self.run(tmp_path) == 0
        assert asked == [(wanted, True, True)]
        assert "model" in torch.load(tmp_path / "out" / "w.pth", weights_only=True)

    def test_a_failed_download_says_what_to_do(self, tmp_path, monkeypatch, capsys):
        def fail(self, **options):
            raise OSError("no route")

        monkeypatch.setattr(torchvision.models.MobileNet_V2_Weights, "get_state_dict", fail)
        assert self.run(tmp_path) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: https://download.pytorch.org/models/mobilenet_v2-")
        assert "no route" in error
        assert "--weights" in error
        assert not (tmp_path / "out").exists()

    def test_a_name_that_detectron2_would_read_otherwise_is_refused(self, tmp_path, capsys):
        assert main(["--arch", "resnet18", "--out", str(tmp_path / "w.pkl")]) == 2
        assert "ends in .pth" in capsys.readouterr().err
