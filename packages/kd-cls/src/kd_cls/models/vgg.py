"""VGG with BatchNorm for small images."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from kd_cls.models.layers import convolution, init_classifier, init_convolutions
from kd_cls.models.paths import Taps


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, global pooling, one linear layer.

    Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    arXiv:1409.1556. Maps are halved before stages 1, 2, 3, and before stage 4 for 64-pixel images.

    Args:
        convolutions: Number of convolutions in every stage.
        num_classes: Number of logits.
    """

    channels = (64, 128, 256, 512, 512)

    def __init__(
        self, convolutions: tuple[int, int, int, int, int], num_classes: int = 100
    ) -> None:
        super().__init__()
        in_channels = 3
        for i, (width, count) in enumerate(zip(self.channels, convolutions, strict=True)):
            self.add_module(f"block{i}", _stage(in_channels, width, count))
            self.add_module(f"relu{i}", nn.ReLU())
            in_channels = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(512, num_classes)
        init_convolutions(self)
        init_classifier(self.classifier)

    @property
    def taps(self) -> Taps:
        """Tap paths."""
        stages = ("relu0", "relu1", "relu2", "relu3", "relu4")
        blocks = ("block1", "block2", "block3", "block4")
        return Taps(
            stages=stages,
            preact=(stages[0], *blocks),
            pooled="classifier:in",
            batchnorms=tuple(f"{block}.{len(getattr(self, block)) - 1}" for block in blocks),
            channels=self.channels,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        halved = (1, 2, 3, 4) if x.shape[2] == 64 else (1, 2, 3)
        for i in range(5):
            if i in halved:
                x = max_pool2d(x, 2)
            x = self.get_submodule(f"block{i}")(x)
            x = self.get_submodule(f"relu{i}")(x)
        return self.classifier(self.avgpool(x).flatten(1))


def _stage(in_channels: int, out_channels: int, count: int) -> nn.Sequential:
    """Return conv, BatchNorm, ReLU, conv, BatchNorm, ...: the last ReLU is outside."""
    layers: list[nn.Module] = []
    for i in range(count):
        conv = convolution(in_channels if i == 0 else out_channels, out_channels, 3, bias=True)
        layers += [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


MODELS: dict[str, Callable[..., nn.Module]] = {
    "vgg8": partial(VGG, (1, 1, 1, 1, 1)),
    "vgg11": partial(VGG, (1, 1, 2, 2, 2)),
    "vgg13": partial(VGG, (2, 2, 2, 2, 2)),
    "vgg16": partial(VGG, (2, 2, 3, 3, 3)),
    "vgg19": partial(VGG, (2, 2, 4, 4, 4)),
}
