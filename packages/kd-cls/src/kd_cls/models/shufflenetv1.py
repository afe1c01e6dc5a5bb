"""ShuffleNetV1 with three groups, for small images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kd_cls.models.layers import ChannelShuffle, convolution
from kd_cls.models.paths import Taps, residual_taps

_GROUPS = 3


class Bottleneck(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; at stride 2 beside the pooled input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        own = out_channels - in_channels if stride == 2 else out_channels
        inner = own // 4
        groups = 1 if in_channels == 24 else _GROUPS  # the stem is too narrow for groups
        self.conv1 = convolution(in_channels, inner, 1, groups=groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.shuffle = ChannelShuffle(groups)
        self.conv2 = convolution(inner, inner, 3, stride=stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv3 = convolution(inner, own, 1, groups=_GROUPS)
        self.bn3 = nn.BatchNorm2d(own)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out, H/stride, W/stride]."""
        own = self.shuffle(self.relu1(self.bn1(self.conv1(x))))
        own = self.relu2(self.bn2(self.conv2(own)))
        own = self.bn3(self.conv3(own))
        return self.relu(own + x if self.pool is None else torch.cat([own, self.pool(x)], dim=1))


class ShuffleNetV1(nn.Module):
    """Grouped 1x1 convolutions with shuffled channels, on a 1x1 stem at full resolution.

    Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
    Devices", arXiv:1707.01083.

    Args:
        num_classes: Number of logits.
    """

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.conv1 = convolution(3, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        self.relu = nn.ReLU()
        self.layer1 = _stage(24, 240, 4)
        self.layer2 = _stage(240, 480, 8)
        self.layer3 = _stage(480, 960, 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(960, num_classes)

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        return residual_taps(
            self,
            ("layer1", "layer2", "layer3"),
            batchnorm=None,
            pooled="linear:in",
            channels=(24, 240, 480, 960),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.avgpool(x).flatten(1))


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    rest = (Bottleneck(out_channels, out_channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(in_channels, out_channels, 2), *rest)


MODELS: dict[str, Callable[..., nn.Module]] = {"ShuffleV1": ShuffleNetV1}
