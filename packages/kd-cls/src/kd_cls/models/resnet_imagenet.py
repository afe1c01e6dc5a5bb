"""torchvision's ResNets with a ReLU module for every place, so that all maps can be tapped."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models import resnet

from kd_cls.models.paths import Taps, residual_taps


class BasicBlock(resnet.BasicBlock):
    """torchvision's block; its one in-place ReLU hides the sum that OFD and ReviewKD read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relu1 = nn.ReLU()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, width, H/stride, W/stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(resnet.Bottleneck):
    """torchvision's bottleneck; see `BasicBlock`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, 4 width, H/stride, W/stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNetImageNet(resnet.ResNet):
    """`torchvision.models.resnet.ResNet`: same function, same keys, every stage tappable.

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
        num_classes: int = 1000,
        *,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__(block, list(blocks), num_classes, zero_init_residual)
        self.relu = nn.ReLU()
        self.last_batchnorm = "bn2" if block is BasicBlock else "bn3"
        self.channels = (64, *(block.expansion * width for width in (64, 128, 256, 512)))

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        return residual_taps(
            self,
            ("layer1", "layer2", "layer3", "layer4"),
            batchnorm=self.last_batchnorm,
            pooled="fc:in",
            channels=self.channels,
        )


MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18_imagenet": partial(ResNetImageNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34_imagenet": partial(ResNetImageNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50_imagenet": partial(ResNetImageNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101_imagenet": partial(ResNetImageNet, Bottleneck, (3, 4, 23, 3)),
    "resnet152_imagenet": partial(ResNetImageNet, Bottleneck, (3, 8, 36, 3)),
}
