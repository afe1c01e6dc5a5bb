"""CIFAR ResNets of depth 6n + 2 with projection shortcuts, and their four times wider variants."""

from collections.abc import Callable
from functools import partial

from kd_core.errors import UserError
from torch import Tensor, nn

from kd_cls.models.layers import convolution, init_convolutions
from kd_cls.models.paths import Taps, residual_taps


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return He et al.'s option B: a 1x1 convolution and BatchNorm."""
    return nn.Sequential(
        convolution(in_channels, out_channels, 1, stride=stride), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and the shortcut added before the last ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, out_channels, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = downsample
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out, H/stride, W/stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """Residual network of three stages for small images.

    Section 4.2 of He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385,
    with projection shortcuts where the paper pads (see `resnet_a`).

    Args:
        depth: 6n + 2; n blocks in every stage.
        num_classes: Number of logits.
        widths: Channels of the stem and of the three stages.
        shortcut: Called with (in_channels, out_channels, stride) where the shapes change.

    Raises:
        UserError: If depth is not 6n + 2.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 100,
        *,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        shortcut: Callable[[int, int, int], nn.Module] = projection,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise UserError(f"ResNet: depth must be 6n + 2, such as 20 or 56, got {depth}")
        self.channels = widths
        self.conv1 = convolution(3, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(widths[0], widths[1], blocks, 1, shortcut)
        self.layer2 = _stage(widths[1], widths[2], blocks, 2, shortcut)
        self.layer3 = _stage(widths[2], widths[3], blocks, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], num_classes)
        init_convolutions(self)

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        return residual_taps(
            self,
            ("layer1", "layer2", "layer3"),
            batchnorm="bn2",
            pooled="fc:in",
            channels=self.channels,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(
    in_channels: int,
    out_channels: int,
    blocks: int,
    stride: int,
    shortcut: Callable[[int, int, int], nn.Module],
) -> nn.Sequential:
    changes = stride != 1 or in_channels != out_channels
    downsample = shortcut(in_channels, out_channels, stride) if changes else None
    first = BasicBlock(in_channels, out_channels, stride, downsample)
    rest = (BasicBlock(out_channels, out_channels, 1, None) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


_WIDE = (32, 64, 128, 256)

MODELS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": partial(ResNet, 8, widths=_WIDE),
    "resnet32x4": partial(ResNet, 32, widths=_WIDE),
}
