"""Wide residual networks: pre-activation blocks, wrn_depth_factor."""

from collections.abc import Callable
from functools import partial

from kd_core.errors import UserError
from torch import Tensor, nn

from kd_cls.models.layers import convolution, init_convolutions
from kd_cls.models.paths import Taps


class Block(nn.Module):
    """Two times BatchNorm, ReLU, 3x3 convolution; a projection sees the activated input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = convolution(in_channels, out_channels, 3, stride=stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(out_channels, out_channels, 3)
        same = in_channels == out_channels
        self.convShortcut = (
            None if same else convolution(in_channels, out_channels, 1, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out, H/stride, W/stride]."""
        active = self.relu1(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        x = self.relu2(self.bn2(self.conv1(active)))
        return self.conv2(self.dropout(x)) + shortcut


class Stage(nn.Module):
    """Blocks in a row, under the name `layer` of the published checkpoints."""

    def __init__(
        self, in_channels: int, out_channels: int, blocks: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        first = Block(in_channels, out_channels, stride, dropout)
        rest = (Block(out_channels, out_channels, 1, dropout) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out, H/stride, W/stride]."""
        return self.layer(x)


class WideResNet(nn.Module):
    """Residual network that grows in width instead of depth.

    Zagoruyko & Komodakis, "Wide Residual Networks", arXiv:1605.07146. The stages end in a raw sum.
    Its pre-activation is the output of the next BatchNorm, tapped on the main path.

    Args:
        depth: 6n + 4; n blocks in every stage.
        factor: Widths are 16 and 16, 32, 64 times this.
        num_classes: Number of logits.
        dropout: Probability between the two convolutions of a block.

    Raises:
        UserError: If depth is not 6n + 4.
    """

    def __init__(
        self, depth: int, factor: int, num_classes: int = 100, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise UserError(f"WideResNet: depth must be 6n + 4, such as 16 or 40, got {depth}")
        self.channels = (16, 16 * factor, 32 * factor, 64 * factor)
        self.conv1 = convolution(3, 16, 3)
        self.block1 = Stage(16, self.channels[1], blocks, 1, dropout)
        self.block2 = Stage(self.channels[1], self.channels[2], blocks, 2, dropout)
        self.block3 = Stage(self.channels[2], self.channels[3], blocks, 2, dropout)
        self.bn1 = nn.BatchNorm2d(self.channels[3])
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.channels[3], num_classes)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        batchnorms = ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")
        return Taps(
            stages=("conv1", "block1", "block2", "block3"),
            preact=("conv1", *batchnorms),
            pooled="fc:in",
            batchnorms=batchnorms,
            channels=self.channels,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = self.relu(self.bn1(x))
        return self.fc(self.avgpool(x).flatten(1))


MODELS: dict[str, Callable[..., nn.Module]] = {
    f"wrn_{depth}_{factor}": partial(WideResNet, depth, factor)
    for depth in (16, 40)
    for factor in (1, 2)
}
