"""MobileNetV2 and ResNet10 with a pyramid are built and frozen as Detectron2's own backbones."""

import importlib
import sys

import pytest
import torch
from kd_core.errors import UserError
from torch import nn

pytest.importorskip("detectron2")

import kd_det  # noqa: F401  before Detectron2
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone
from kd_det import networks
from kd_det.networks import detector, resnet10  # noqa: F401  the second registers itself
from kd_det.networks.backbones import MobileNetV2

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
CHANNELS = {"res2": 24, "res3": 32, "res4": 96, "res5": 320}


def config(name="build_mobilenetv2_fpn_backbone", features=tuple(STRIDES), norm="FrozenBN"):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = list(features)
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    return cfg


def shapes(maps):
    return {name: tuple(value.shape) for name, value in maps.items()}


def test_the_maps_have_the_channels_and_strides_of_mdistiller():
    backbone = MobileNetV2("FrozenBN", list(STRIDES))
    stated = backbone.output_shape()
    assert {name: spec.channels for name, spec in stated.items()} == CHANNELS
    assert {name: spec.stride for name, spec in stated.items()} == STRIDES
    expected = {name: (1, CHANNELS[name], 64 // s, 64 // s) for name, s in STRIDES.items()}
    with torch.no_grad():
        assert shapes(backbone(torch.rand(1, 3, 64, 64))) == expected


def test_whoever_builds_a_detector_has_them(monkeypatch):
    """As a tool does that imports nothing else, such as `tools/det_export.py`."""
    modules = ("detector", "backbones", "resnet10")
    for name in modules:
        monkeypatch.setattr(networks, name, getattr(networks, name))  # put back afterwards
        monkeypatch.delitem(sys.modules, f"kd_det.networks.{name}")
    theirs = {n: one for n, one in BACKBONE_REGISTRY if not one.__module__.startswith("kd_det.")}
    monkeypatch.setattr(BACKBONE_REGISTRY, "_obj_map", dict(theirs))
    importlib.import_module("kd_det.networks.detector")
    assert {"build_mobilenetv2_fpn_backbone", "build_resnet10_fpn_backbone"} <= {
        name for name, _ in BACKBONE_REGISTRY
    } - theirs.keys()


def test_only_the_named_maps_are_returned():
    backbone = MobileNetV2("FrozenBN", ["stem", "res4"])
    assert shapes(backbone(torch.rand(1, 3, 32, 32))) == {
        "stem": (1, 16, 16, 16),
        "res4": (1, 96, 2, 2),
    }


def test_the_pyramid_of_an_rcnn_has_p2_to_p6():
    pyramid = build_backbone(config())
    assert pyramid.size_divisibility == 32
    sizes = {"p2": 16, "p3": 8, "p4": 4, "p5": 2, "p6": 1}
    expected = {name: (2, 8, size, size) for name, size in sizes.items()}
    assert shapes(pyramid(torch.rand(2, 3, 64, 64))) == expected


def test_the_pyramid_of_retinanet_has_p3_to_p7_from_res5():
    cfg = config("build_retinanet_mobilenetv2_fpn_backbone", ["res3", "res4", "res5"])
    pyramid = build_backbone(cfg)
    assert pyramid.top_block.p6.in_channels == CHANNELS["res5"]
    sizes = {"p3": 16, "p4": 8, "p5": 4, "p6": 2, "p7": 1}
    expected = {name: (1, 8, size, size) for name, size in sizes.items()}
    assert shapes(pyramid(torch.rand(1, 3, 128, 128))) == expected


def test_settings_of_the_pyramid_are_read():
    cfg = config()
    cfg.MODEL.FPN.NORM, cfg.MODEL.FPN.FUSE_TYPE = "BN", "avg"
    pyramid = build_backbone(cfg)
    assert isinstance(pyramid.fpn_lateral2.norm, nn.BatchNorm2d)
    assert pyramid._fuse_type == "avg"


@pytest.mark.parametrize(
    ("norm", "kind"), [("FrozenBN", FrozenBatchNorm2d), ("BN", nn.BatchNorm2d)]
)
def test_the_normalisation_is_that_of_the_config(norm, kind):
    bottom_up = build_backbone(config(norm=norm)).bottom_up
    kinds = (FrozenBatchNorm2d, nn.BatchNorm2d)
    found = [module for module in bottom_up.modules() if isinstance(module, kinds)]
    assert len(found) == 51
    assert all(isinstance(module, kind) for module in found)


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 5])
def test_the_first_stages_are_frozen(freeze_at):
    backbone = MobileNetV2("BN", list(STRIDES), freeze_at)
    for number, (_, stage) in enumerate(backbone.named_children(), start=1):
        frozen = number <= freeze_at
        trainable = [parameter.requires_grad for parameter in stage.parameters()]
        assert all(value is not frozen for value in trainable)
        norms = {type(m) for m in stage.modules() if "BatchNorm" in type(m).__name__}
        assert (norms == {FrozenBatchNorm2d}) is frozen


@pytest.mark.parametrize("norm", ["GN", "", "BatchNorm"])
def test_another_normalisation_is_refused(norm):
    with pytest.raises(UserError, match=r"takes a batch normalisation.*RESNETS\.NORM.*FrozenBN|BN"):
        build_backbone(config(norm=norm))


def test_an_unknown_map_is_refused():
    with pytest.raises(UserError, match=r"no map 'res6'.*did you mean"):
        MobileNetV2("BN", ["res6"])


@pytest.mark.parametrize("width", [8, 16])
def test_resnet10_has_one_block_a_stage_and_the_width_of_the_config(width):
    cfg = config("build_resnet10_fpn_backbone", norm="BN")
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 12
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = width
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    backbone = build_backbone(cfg)
    stated = backbone.bottom_up.output_shape()
    expected = {name: width * 2**place for place, name in enumerate(STRIDES)}
    assert {name: spec.channels for name, spec in stated.items()} == expected
    assert {name: spec.stride for name, spec in stated.items()} == STRIDES
    assert [len(stage) for stage in backbone.bottom_up.stages] == [1, 1, 1, 1]
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    sizes = {"p2": 16, "p3": 8, "p4": 4, "p5": 2, "p6": 1}
    assert shapes(maps) == {name: (1, 8, size, size) for name, size in sizes.items()}
    trained = {name for name, one in backbone.named_parameters() if one.requires_grad}
    assert not any(name.startswith(("bottom_up.stem", "bottom_up.res2")) for name in trained)
    assert any(name.startswith("bottom_up.res3") for name in trained)


def test_resnet10_gives_a_retinanet_its_maps():
    cfg = config("build_retinanet_resnet10_fpn_backbone", list(STRIDES)[1:], norm="BN")
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16  # of 256, which take a second to be drawn
    backbone = build_backbone(cfg)
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    sizes = {"p3": 8, "p4": 4, "p5": 2, "p6": 1, "p7": 1}
    assert shapes(maps) == {name: (1, 8, size, size) for name, size in sizes.items()}
