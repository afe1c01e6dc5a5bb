"""ImageNet's ResNets with a stem for small images: capital R in the names."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from kd_cls.models.layers import convolution, init_convolutions
from kd_cls.models.paths import Taps, residual_taps


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and the shortcut added before the last ReLU."""

    expansion = 1
    last_batchnorm = "bn2"

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, width, H/stride, W/stride]."""
        shortcut = self.shortcut(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution, four times wider at the end."""

    expansion = 4
    last_batchnorm = "bn3"

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(width, width, 3, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = convolution(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(in_channels, 4 * width, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, 4 width, H/stride, W/stride]."""
        shortcut = self.shortcut(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNetCifarStem(nn.Module):
    """Residual network of four stages that starts with a 3x3 convolution at full resolution.

    He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, without the stride
    and the pooling of its stem.

    Args:
        block: BasicBlock or Bottleneck.
        blocks: Number of blocks in every stage.
        num_classes: Number of logits.
        zero_init_residual: Start the last BatchNorm of every block at zero (arXiv:1706.02677).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, int, int, int],
        num_classes: int = 100,
        *,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        widths = [block.expansion * width for width in (64, 128, 256, 512)]
        self.last_batchnorm = block.last_batchnorm
        self.channels = (64, *widths)
        self.conv1 = convolution(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = _stage(block, 64, 64, blocks[0], 1)
        self.layer2 = _stage(block, widths[0], 128, blocks[1], 2)
        self.layer3 = _stage(block, widths[1], 256, blocks[2], 2)
        self.layer4 = _stage(block, widths[2], 512, blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[3], num_classes)
        init_convolutions(self)
        if zero_init_residual:
            for name, module in self.named_modules():
                if name.startswith("layer") and name.endswith(self.last_batchnorm):
                    nn.init.zeros_(module.get_parameter("weight"))

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        return residual_taps(
            self,
            ("layer1", "layer2", "layer3", "layer4"),
            batchnorm=self.last_batchnorm,
            pooled="linear:in",
            channels=self.channels,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(self.avgpool(x).flatten(1))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    conv = convolution(in_channels, out_channels, 1, stride=stride)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    width: int,
    blocks: int,
    stride: int,
) -> nn.Sequential:
    rest = (block(block.expansion * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(in_channels, width, stride), *rest)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "ResNet18": partial(ResNetCifarStem, BasicBlock, (2, 2, 2, 2)),
    "ResNet34": partial(ResNetCifarStem, BasicBlock, (3, 4, 6, 3)),
    "ResNet50": partial(ResNetCifarStem, Bottleneck, (3, 4, 6, 3)),
    "ResNet101": partial(ResNetCifarStem, Bottleneck, (3, 4, 23, 3)),
}
