"""A ResNet of one block a stage, for small images: Detectron2's shortest has two, of one width."""

from itertools import pairwise
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock

from kd_det.networks.backbones import pyramid

STAGES = 4


@BACKBONE_REGISTRY.register()
def build_resnet10_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Build a ResNet10 of any width with maps p2 to p6; He et al., CVPR 2016, arXiv:1512.03385.

    Reads the config as for a ResNet, without its depth: res2 has RES2_OUT_CHANNELS, and each later
    stage twice as many as the one before.
    """
    return pyramid(cfg, _resnet10(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet10_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Build the same with maps p3 to p7, for RetinaNet."""
    bottom_up = _resnet10(cfg, input_shape)
    channels = bottom_up.output_shape()["res5"].channels
    return pyramid(cfg, bottom_up, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS))


def _resnet10(cfg: Any, input_shape: ShapeSpec) -> ResNet:
    resnets = cfg.MODEL.RESNETS
    norm, width = resnets.NORM, resnets.RES2_OUT_CHANNELS
    stem = BasicStem(input_shape.channels, resnets.STEM_OUT_CHANNELS, norm)
    widths = [resnets.STEM_OUT_CHANNELS, *(width * 2**stage for stage in range(STAGES))]
    stages = [
        [BasicBlock(before, after, stride=1 if number == 0 else 2, norm=norm)]
        for number, (before, after) in enumerate(pairwise(widths))
    ]
    bottom_up = ResNet(stem, stages, out_features=resnets.OUT_FEATURES)
    return bottom_up.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
