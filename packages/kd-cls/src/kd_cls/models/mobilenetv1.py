"""MobileNetV1 for ImageNet."""

from collections.abc import Callable

from torch import Tensor, nn

from kd_cls.models.layers import convolution
from kd_cls.models.paths import Taps

_UNITS = (  # (in channels, out channels, stride) of the depthwise-separable units
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    *[(512, 512, 1)] * 5,
    (512, 1024, 2),
    (1024, 1024, 1),
)


class MobileNetV1(nn.Module):
    """A convolution and 13 depthwise-separable units, width 1.

    Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
    Applications", arXiv:1704.04861. Its first tap is a stage, not the stem.

    Args:
        num_classes: Number of logits.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.model = nn.Sequential(_conv(3, 32, 3, stride=2), *(_unit(*unit) for unit in _UNITS))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1024, num_classes)

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        batchnorms = ("model.3.4", "model.5.4", "model.11.4", "model.13.4")
        return Taps(
            stages=("model.3", "model.5", "model.11", "model.13"),
            preact=batchnorms,
            pooled="fc:in",
            batchnorms=batchnorms[1:],
            channels=(128, 256, 512, 1024),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        return self.fc(self.avgpool(self.model(x)).flatten(1))


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = convolution(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


def _unit(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    depthwise = _conv(in_channels, in_channels, 3, stride=stride, groups=in_channels)
    return nn.Sequential(*depthwise, *_conv(in_channels, out_channels, 1))


MODELS: dict[str, Callable[..., nn.Module]] = {"MobileNetV1": MobileNetV1}
