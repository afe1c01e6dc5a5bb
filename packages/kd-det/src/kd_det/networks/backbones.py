"""Backbones that Detectron2 lacks: MobileNetV2 with its feature pyramids, by name in configs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torchvision
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from kd_core.errors import UserError, nearest
from torch import Tensor, nn

# Layers of torchvision's `features` that each stage consists of. A stage ends before the next layer
# that halves the map; the last layer, which widens the map for the classifier, is left out.
MOBILENETV2_STAGES = {
    "stem": range(2),
    "res2": range(2, 4),
    "res3": range(4, 7),
    "res4": range(7, 14),
    "res5": range(14, 18),
}
_STRIDES = {"stem": 2, "res2": 4, "res3": 8, "res4": 16, "res5": 32}
_NORMS = ("FrozenBN", "BN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


class MobileNetV2(Backbone):
    """torchvision's MobileNetV2 in stages that are named as those of Detectron2's ResNet.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
    arXiv:1801.04381. The maps res2 to res5 have 24, 32, 96 and 320 channels at strides 4, 8, 16 and
    32, as mdistiller's m2 to m5; they are linear outputs, without an activation.

    Args:
        norm: Name of a batch normalisation, as in MODEL.RESNETS.NORM.
        out_features: Names of the maps to return, of stem and res2 to res5.
        freeze_at: Stages that are not trained: 1 is the stem, 2 stem and res2, and so on.

    Raises:
        UserError: If a normalisation or a stage has another name.
    """

    def __init__(self, norm: str, out_features: Sequence[str], freeze_at: int = 0) -> None:
        super().__init__()
        if norm not in _NORMS:
            raise UserError(
                f"MobileNetV2 takes a batch normalisation, not MODEL.RESNETS.NORM {norm!r}"
                f"{nearest(norm, _NORMS)}"
            )
        for name in out_features:
            if name not in _STRIDES:
                raise UserError(
                    f"MobileNetV2 has no map {name!r}, which MODEL.RESNETS.OUT_FEATURES names"
                    f"{nearest(name, _STRIDES)}"
                )
        network = torchvision.models.mobilenet_v2(norm_layer=partial(get_norm, norm))
        self._out_features = list(out_features)  # Backbone.output_shape reads this and the next two
        self._out_feature_strides = _STRIDES
        self._out_feature_channels = {}
        for number, (name, layers) in enumerate(MOBILENETV2_STAGES.items(), start=1):
            stage = nn.Sequential(*(network.features[i] for i in layers))
            self._out_feature_channels[name] = stage[-1].out_channels
            if number <= freeze_at:
                stage = FrozenBatchNorm2d.convert_frozen_batchnorm(stage.requires_grad_(False))
            self.add_module(name, stage)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the maps [N, C, H / stride, W / stride] of images [N, 3, H, W], by name."""
        maps = {}
        for name, stage in self.named_children():
            image = stage(image)
            if name in self._out_features:
                maps[name] = image
        return maps


@BACKBONE_REGISTRY.register()
def build_mobilenetv2_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Build MobileNetV2 with maps p2 to p6, for R-CNNs; reads the config as for a ResNet."""
    return pyramid(cfg, _mobilenetv2(cfg), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_mobilenetv2_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Build MobileNetV2 with maps p3 to p7, for RetinaNet; reads the config as for a ResNet."""
    bottom_up = _mobilenetv2(cfg)
    channels = bottom_up.output_shape()["res5"].channels
    return pyramid(cfg, bottom_up, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS))


def _mobilenetv2(cfg: Any) -> MobileNetV2:
    resnets = cfg.MODEL.RESNETS
    return MobileNetV2(resnets.NORM, resnets.OUT_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT)


def pyramid(cfg: Any, bottom_up: Backbone, top_block: nn.Module) -> FPN:
    """Return the FPN of a config over the maps of a network."""
    fpn = cfg.MODEL.FPN
    return FPN(
        bottom_up,
        fpn.IN_FEATURES,
        fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=top_block,
        fuse_type=fpn.FUSE_TYPE,
    )
