"""The configs of configs/det build the networks that their README states."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("detectron2")

import kd_det.networks.backbones  # noqa: F401
from detectron2.config import get_cfg
from detectron2.modeling import build_model

CONFIGS = Path(__file__).parents[3] / "configs" / "det"
README = (CONFIGS / "README.md").read_text(encoding="utf-8")
KINDS = ("faster_rcnn", "mask_rcnn", "retinanet")
BACKBONES = ("R_18", "MNV2", "R_50", "R_101")
NETWORKS = [f"{kind}_{backbone}_FPN" for kind in KINDS for backbone in BACKBONES]
OTHERS = {  # students and teachers of methods for their own heads, with millions of parameters
    "keypoint_rcnn_R_18_FPN": 46.11,
    "keypoint_rcnn_R_101_FPN": 78.07,
    "panoptic_fpn_R_18_FPN": 32.95,
    "panoptic_fpn_R_101_FPN": 64.91,
    "cascade_mask_rcnn_R_18_FPN": 58.96,
    "cascade_mask_rcnn_R_50_FPN": 71.98,
}
PARTS = {
    "faster_rcnn": {"backbone", "proposal_generator", "roi_heads"},
    "mask_rcnn": {"backbone", "proposal_generator", "roi_heads"},
    "retinanet": {"backbone", "anchor_generator", "head"},
}


def read(name, device="cpu"):
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    cfg.MODEL.DEVICE = device
    return cfg


@cache
def skeleton(name):
    """Build a network whose tensors have shapes and no values, in milliseconds."""
    with torch.device("meta"):
        return build_model(read(name, "meta"))


def kind_and_backbone(name):
    return re.fullmatch(r"(.+?)_(R_\d+|MNV2)_FPN", name).groups()


def test_every_config_without_distillation_is_tested():
    files = {path.stem for path in CONFIGS.glob("*.yaml")}
    networks = {name for name in files if not re.search(r"^KD:", text(name), re.MULTILINE)}
    assert {name for name in networks if not name.startswith("Base-")} == {*NETWORKS, *OTHERS}


def text(name):
    return (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*NETWORKS, "Base-RCNN-FPN", "Base-RetinaNet"])
def test_a_config_is_plain_data(name):
    assert isinstance(yaml.safe_load(text(name)), dict)


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_and_parts_are_those_of_the_architecture(name):
    model, (kind, _) = skeleton(name), kind_and_backbone(name)
    levels = range(3, 8) if kind == "retinanet" else range(2, 7)
    stated = model.backbone.output_shape()
    assert {key: spec.stride for key, spec in stated.items()} == {f"p{i}": 2**i for i in levels}
    assert {spec.channels for spec in stated.values()} == {256}
    assert {key for key, _ in model.named_children()} == PARTS[kind]
    assert hasattr(getattr(model, "roi_heads", None), "mask_head") is (kind == "mask_rcnn")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_readme_has_the_numbers_of_parameters(backbone):
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `*_{backbone}_FPN")]
    stated = [float(number) for number in row.split("|")[2].split(",")]
    built = [skeleton(f"{kind}_{backbone}_FPN") for kind in KINDS]
    assert [round(sum(p.numel() for p in m.parameters()) / 1e6, 2) for m in built] == stated


@pytest.mark.parametrize(("name", "parameters"), OTHERS.items())
def test_other_heads_have_the_stated_numbers_of_parameters(name, parameters):
    built = skeleton(name)
    assert round(sum(p.numel() for p in built.parameters()) / 1e6, 2) == parameters
    assert f"| `{name}` | {parameters} |" in README


@pytest.mark.parametrize("name", [*NETWORKS, *OTHERS])
def test_images_are_normalised_as_for_the_weights(name):
    cfg = read(name)
    image = (cfg.INPUT.FORMAT, list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD))
    if "MSRA" in cfg.MODEL.WEIGHTS:
        assert image == ("BGR", [103.53, 116.28, 123.675], [1.0, 1.0, 1.0])
        assert cfg.MODEL.RESNETS.STRIDE_IN_1X1
    else:
        assert cfg.MODEL.WEIGHTS.endswith(".pth")
        assert image == ("RGB", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
        assert cfg.MODEL.WEIGHTS in README


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_stages_are_frozen_as_stated(name):
    model, (_, backbone) = skeleton(name), kind_and_backbone(name)
    bottom_up = model.backbone.bottom_up
    trained = {key for key, stage in bottom_up.named_children() if any_trained(stage)}
    later = {"res3", "res4", "res5"}
    assert trained == (later | {"stem", "res2"} if backbone == "MNV2" else later)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


def any_trained(module):
    return any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_schedule_is_that_of_the_readme(name):
    solver, (kind, backbone) = read(name).SOLVER, kind_and_backbone(name)
    images, rate, steps, last = 8, 0.01, (120_000, 160_000), 180_000
    if backbone == "R_101":
        images, rate, steps, last = 16, 0.02, (210_000, 250_000), 270_000
    rate = rate / 2 if kind == "retinanet" else rate
    found = (solver.IMS_PER_BATCH, solver.BASE_LR, tuple(solver.STEPS), solver.MAX_ITER)
    assert found == (images, rate, steps, last)


def test_anchors_of_retinanet_are_three_to_an_octave():
    sizes = read("retinanet_R_18_FPN").MODEL.ANCHOR_GENERATOR.SIZES
    assert sizes == [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in (32, 64, 128, 256, 512)]


@pytest.mark.parametrize("backbone", ["R_18", "MNV2"])
@pytest.mark.parametrize("kind", ["mask_rcnn", "retinanet"])
@torch.no_grad()
def test_a_student_detects_in_a_small_image(kind, backbone):
    cfg = read(f"{kind}_{backbone}_FPN")
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 10
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    (prediction,) = model([{"image": image}])
    assert prediction["instances"].image_size == (64, 64)
