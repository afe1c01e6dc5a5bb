"""MobileNetV2 of half width for small images."""

from collections.abc import Callable

from torch import Tensor, nn

from kd_cls.models.layers import convolution, init_classifier, init_convolutions
from kd_cls.models.paths import Taps

_STAGES = (  # (expansion, channels, blocks, stride)
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)
_TAPPED = (1, 2, 4, 6)


def inverted_layers(
    in_channels: int,
    out_channels: int,
    stride: int,
    expansion: int,
    *,
    activation: type[nn.Module] = nn.ReLU,
    bias: bool = False,
) -> nn.Sequential:
    """Return expand 1x1, depthwise 3x3 (with the stride), project 1x1; the end is linear."""
    inner = expansion * in_channels
    return nn.Sequential(
        convolution(in_channels, inner, 1, bias=bias),
        nn.BatchNorm2d(inner),
        activation(),
        convolution(inner, inner, 3, stride=stride, groups=inner, bias=bias),
        nn.BatchNorm2d(inner),
        activation(),
        convolution(inner, out_channels, 1, bias=bias),
        nn.BatchNorm2d(out_channels),
    )


class InvertedResidual(nn.Module):
    """`inverted_layers`, added to their input where the shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.conv = inverted_layers(in_channels, out_channels, stride, expansion)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out, H/stride, W/stride]."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """Inverted residuals with linear ends; the "mobile_half" of the distillation literature.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381, with
    ReLU instead of ReLU6, as the published CIFAR checkpoints have it. The stages after the stem are
    linear already, so there is no separate pre-activation.

    Args:
        num_classes: Number of logits.
    """

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(convolution(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        widths = (16, *(channels for _, channels, _, _ in _STAGES))
        self.blocks = nn.Sequential(
            *(_stage(width, *stage) for width, stage in zip(widths, _STAGES, strict=False))
        )
        self.conv2 = nn.Sequential(convolution(160, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        linear = nn.Linear(1280, num_classes)
        self.classifier = nn.Sequential(linear)
        init_convolutions(self)
        init_classifier(linear)

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        return Taps(
            stages=("conv1", *(f"blocks.{i}" for i in _TAPPED)),
            preact=None,
            pooled="classifier.0:in",
            batchnorms=tuple(f"blocks.{i}.{_STAGES[i][2] - 1}.conv.7" for i in _TAPPED),
            channels=(16, *(_STAGES[i][1] for i in _TAPPED)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        x = self.conv2(self.blocks(self.conv1(x)))
        return self.classifier(self.avgpool(x).flatten(1))


def _stage(
    in_channels: int, expansion: int, channels: int, blocks: int, stride: int
) -> nn.Sequential:
    first = InvertedResidual(in_channels, channels, stride, expansion)
    rest = (InvertedResidual(channels, channels, 1, expansion) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


MODELS: dict[str, Callable[..., nn.Module]] = {"MobileNetV2": MobileNetV2}
