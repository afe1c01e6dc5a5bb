"""Roles of the zoo's networks, of ResNets and of torchvision's MobileNetV2."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from kd_cls.families.search import Roles
from kd_cls.models.paths import Taps
from kd_cls.models.wideresnet import WideResNet


def of_mobilenet(features: nn.Sequential) -> Roles:
    """Return the roles of torchvision's MobileNetV2.

    Its blocks end linearly, in few channels. The maps before an activation have many channels:
    those of the depthwise convolution in a block, and of the convolution after all blocks.
    """
    inner = []
    for place, block in enumerate(features[1:-1], 1):
        layers = sum(1 for _ in block.get_submodule("conv").children())  # 4; 3 in the first block
        inner.append(f"features.{place}.conv.{layers - 3}.1")  # the BatchNorm of the depthwise one
    last = f"features.{len(features) - 1}.1"
    return {
        "stem": ("features.0",),
        "stages": tuple(f"features.{place}" for place in (3, 6, 13, 17)),
        "preact": (*(inner[place - 1] for place in (3, 6, 13)), last),
        "preact_blocks": (*inner, last),
        "map": ("features",),
    }


def of_zoo(network: nn.Module, taps: Taps) -> Roles:
    """Return the roles of a network that says its taps itself."""
    # The first pre-activation is the stem itself, where there is a stem.
    first = 0 if taps.preact and taps.preact[0] != taps.stages[0] else 1
    stages = taps.stages[first:]
    return {
        "stem": taps.stages[:first],
        "stages": stages,
        "preact": taps.preact[first:] if taps.preact else stages,
        "blocks": _blocks(network, stages),
        "map": ("avgpool:in",),
        "avgpool": ("avgpool",),
        "pooled": (taps.pooled,),
    }


def of_resnet(network: nn.Module) -> Roles:
    """Return the roles of torchvision's or timm's ResNet; torchvision runs one ReLU twice."""
    stages = ("layer1", "layer2", "layer3", "layer4")
    timm = hasattr(network, "act1")
    blocks = [_blocks(network, [stage]) for stage in stages]
    preact = [[f"{path}.{_last_activation(network, path)}" for path in paths] for paths in blocks]
    return {
        "stem": ("act1" if timm else "relu",),
        "stages": stages,
        "preact": tuple(paths[-1] for paths in preact),
        "blocks": tuple(path for paths in blocks for path in paths),
        "preact_blocks": tuple(path for paths in preact for path in paths),
        "map": ("layer4",),
        "avgpool": ("global_pool.pool" if timm else "avgpool",),
        "pooled": ("fc:in",),
    }


def _last_activation(network: nn.Module, block: str) -> str:
    for name in ("act3", "act2"):
        if hasattr(network.get_submodule(block), name):
            return f"{name}:in"
    return "relu:in[*][-1]"


def _blocks(network: nn.Module, stages: Sequence[str]) -> tuple[str, ...]:
    """Return the paths after the activation of each block, or of a stage without blocks."""
    found: list[str] = []
    for stage in stages:
        module: Any = network.get_submodule(stage.partition(":")[0])
        inner = getattr(module, "layer", module)  # of a WideResNet
        prefix = stage if inner is module else f"{stage}.layer"
        whole = not isinstance(inner, nn.Sequential) or isinstance(inner[0], nn.Conv2d)
        found += [stage] if whole else [f"{prefix}.{number}" for number in range(len(inner))]
    if isinstance(network, WideResNet):  # as in the code of AFD, the only method on blocks
        return (*(f"{path}.relu1" for path in found[1:]), "relu")
    return tuple(found)
