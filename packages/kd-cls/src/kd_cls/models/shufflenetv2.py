"""ShuffleNetV2 in six widths, for small images."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from kd_cls.models.layers import ChannelShuffle, convolution
from kd_cls.models.paths import Taps


class BasicBlock(nn.Module):
    """Half of the channels are unchanged; the other half: 1x1, depthwise 3x3, 1x1.

    The authors' code applies the last ReLU to the second half, before the shuffle. Here it follows
    the shuffle and covers both: the first half is an activation already, so no value changes, and
    the input of `shuffle` is the pre-activation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = convolution(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.shuffle = ChannelShuffle(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        first, second = x.chunk(2, dim=1)
        second = self.relu1(self.bn1(self.conv1(second)))
        second = self.bn3(self.conv3(self.bn2(self.conv2(second))))
        return self.relu(self.shuffle(torch.cat([first, second], dim=1)))


class DownBlock(nn.Module):
    """Two branches see the whole input, each with a depthwise 3x3 convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = convolution(in_channels, in_channels, 3, stride=2, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = convolution(in_channels, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution(in_channels, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()
        self.conv4 = convolution(half, half, 3, stride=2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = convolution(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)
        self.shuffle = ChannelShuffle(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out, H/2, W/2]."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = self.relu3(self.bn3(self.conv3(x)))
        right = self.bn5(self.conv5(self.bn4(self.conv4(right))))
        return self.relu(self.shuffle(torch.cat([left, right], dim=1)))


class ShuffleNetV2(nn.Module):
    """Split, transform one half, shuffle; on a 1x1 stem at full resolution.

    Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
    arXiv:1807.11164.

    Args:
        widths: Channels of the three stages and of the last 1x1 convolution.
        num_classes: Number of logits.
        blocks: Basic blocks after the down block of every stage.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int],
        num_classes: int = 100,
        *,
        blocks: tuple[int, int, int] = (3, 7, 3),
    ) -> None:
        super().__init__()
        self.channels = (24, *widths[:3])
        self.conv1 = convolution(3, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        self.relu = nn.ReLU()
        self.layer1 = _stage(24, widths[0], blocks[0])
        self.layer2 = _stage(widths[0], widths[1], blocks[1])
        self.layer3 = _stage(widths[1], widths[2], blocks[2])
        self.conv2 = convolution(widths[2], widths[3], 1)
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[3], num_classes)

    @property
    def taps(self) -> Taps:
        """Tap paths; the channels of `preact` are not yet shuffled, those of `stages` are."""
        layers = ("layer1", "layer2", "layer3")
        lasts = (f"{layer}.{len(getattr(self, layer)) - 1}" for layer in layers)
        return Taps(
            stages=("relu", *layers),
            preact=("relu", *(f"{last}.shuffle:in" for last in lasts)),
            pooled="linear:in",
            batchnorms=(),
            channels=self.channels,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.linear(self.avgpool(x).flatten(1))


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    rest = (BasicBlock(out_channels) for _ in range(blocks))
    return nn.Sequential(DownBlock(in_channels, out_channels), *rest)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "ShuffleV2": partial(ShuffleNetV2, (116, 232, 464, 1024)),
    "ShuffleV2_x0_2": partial(ShuffleNetV2, (40, 80, 160, 512), blocks=(3, 3, 3)),
    "ShuffleV2_x0_3": partial(ShuffleNetV2, (40, 80, 160, 512)),
    "ShuffleV2_x0_5": partial(ShuffleNetV2, (48, 96, 192, 1024)),
    "ShuffleV2_x1_5": partial(ShuffleNetV2, (176, 352, 704, 1024)),
    "ShuffleV2_x2_0": partial(ShuffleNetV2, (224, 488, 976, 2048)),
}
