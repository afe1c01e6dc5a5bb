"""A ResNet of one block a stage, for small images: Detectron2's shortest has two, of one width."""

from itertools import pairwise
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock

STAGES = 4


@BACKBONE_REGISTRY.register()
def build_resnet10_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Build a ResNet10 of any width with maps p2 to p6; He et al., CVPR 2016, arXiv:1512.03385.

    Reads the config as for a ResNet, without its depth: res2 has RES2_OUT_CHANNELS, and each later
    stage twice as many as the one before.
    """
    resnets, fpn = cfg.MODEL.RESNETS, cfg.MODEL.FPN
    norm, width = resnets.NORM, resnets.RES2_OUT_CHANNELS
    stem = BasicStem(input_shape.channels, resnets.STEM_OUT_CHANNELS, norm)
    widths = [resnets.STEM_OUT_CHANNELS, *(width * 2**stage for stage in range(STAGES))]
    stages = [
        [BasicBlock(before, after, stride=1 if number == 0 else 2, norm=norm)]
        for number, (before, after) in enumerate(pairwise(widths))
    ]
    bottom_up = ResNet(stem, stages, out_features=resnets.OUT_FEATURES)
    return FPN(
        bottom_up.freeze(cfg.MODEL.BACKBONE.FREEZE_AT),
        fpn.IN_FEATURES,
        fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=fpn.FUSE_TYPE,
    )
