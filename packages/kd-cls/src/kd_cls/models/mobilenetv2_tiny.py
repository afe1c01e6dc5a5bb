"""MobileNetV2 for the 64-pixel images of Tiny-ImageNet."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from kd_cls.models.layers import convolution
from kd_cls.models.mobilenetv2 import inverted_layers
from kd_cls.models.paths import Taps

_layers = partial(inverted_layers, activation=nn.ReLU6, bias=True)


class LinearBottleneck(nn.Module):
    """`inverted_layers`, added to their input where the shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.residual = _layers(in_channels, out_channels, stride, expansion)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out, H/stride, W/stride]."""
        return x + self.residual(x) if self.adds else self.residual(x)


class MobileNetV2Tiny(nn.Module):
    """MobileNetV2 of full width with biases and ReLU6, as the DOT checkpoints have it.

    Sandler et al., arXiv:1801.04381. The stem is a padded 1x1 convolution: 64 pixels become 66.

    Args:
        num_classes: Number of logits.
    """

    def __init__(self, num_classes: int = 200) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 32, 1, padding=1)
        self.pre = nn.Sequential(stem, nn.BatchNorm2d(32), nn.ReLU6())
        self.stage1 = LinearBottleneck(32, 16, 1, 1)
        self.stage2 = _stage(16, 24, 2, stride=2)
        self.stage3 = _stage(24, 32, 3, stride=2)
        self.stage4 = _stage(32, 64, 4, stride=2)
        self.stage5 = _stage(64, 96, 3)
        self.stage6 = _stage(96, 160, 3)
        self.stage7 = LinearBottleneck(160, 320, 1, 6)
        last = convolution(320, 1280, 1, bias=True)
        self.conv1 = nn.Sequential(last, nn.BatchNorm2d(1280), nn.ReLU6())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.conv2 = nn.Conv2d(1280, num_classes, 1)

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        return Taps(
            stages=("pre", "stage2", "stage3", "stage4", "conv1"),
            preact=None,
            pooled="flatten",
            batchnorms=(),
            channels=(32, 24, 32, 64, 1280),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.pre(x)))))
        x = self.conv1(self.stage7(self.stage6(self.stage5(x))))
        pooled = self.flatten(self.avgpool(x))
        return self.conv2(pooled[:, :, None, None]).flatten(1)


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int = 1) -> nn.Sequential:
    first = LinearBottleneck(in_channels, out_channels, stride, 6)
    rest = (LinearBottleneck(out_channels, out_channels, 1, 6) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


MODELS: dict[str, Callable[..., nn.Module]] = {"MobileNetV2_tiny": MobileNetV2Tiny}
