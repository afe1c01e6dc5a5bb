"""Tap paths of a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn


@dataclass(frozen=True)
class Taps:
    """Tap paths of one network, relative to it, shallow to deep.

    `path` is a module's output, `path:in` its first input. The map that is pooled is `avgpool:in`
    in every network, and the path before `:in` in `pooled` is the classifier.

    Attributes:
        stages: Stem (MobileNetV1: none), then the end of every stage, [N, C, H, W] each. After the
            activation, except where the family has none there: WRN raw, MobileNetV2 linear.
        preact: The same places before the last activation, or None. The first is `stages[0]` where
            that is a stem.
        pooled: The vector that the classifier gets, [N, D].
        batchnorms: The BatchNorm before the activation of `stages[1:]`; empty where there is none.
        channels: Width of every map of `stages`.
    """

    stages: tuple[str, ...]
    preact: tuple[str, ...] | None
    pooled: str
    batchnorms: tuple[str, ...]
    channels: tuple[int, ...]


def residual_taps(
    network: nn.Module,
    layers: Sequence[str],
    *,
    batchnorm: str | None,
    pooled: str,
    channels: Sequence[int],
) -> Taps:
    """Return the taps of a network of residual blocks that end in a module named `relu`.

    Args:
        network: Has a stem that ends in `relu`, and a Sequential of blocks for every layer.
        layers: Names of the layers.
        batchnorm: Name of the last BatchNorm in a block; None if its map is not all the sum.
        pooled: Path of the pooled vector.
        channels: Width of the stem and of every layer.
    """
    stages = [cast(nn.Sequential, network.get_submodule(layer)) for layer in layers]
    lasts = [f"{layer}.{len(stage) - 1}" for layer, stage in zip(layers, stages, strict=True)]
    return Taps(
        stages=("relu", *layers),
        preact=("relu", *(f"{last}.relu:in" for last in lasts)),
        pooled=pooled,
        batchnorms=tuple(f"{last}.{batchnorm}" for last in lasts) if batchnorm else (),
        channels=tuple(channels),
    )
