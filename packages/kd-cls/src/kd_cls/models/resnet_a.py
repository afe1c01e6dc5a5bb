"""CIFAR ResNets whose shortcuts have no parameters (option A of the paper)."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import pad

from kd_cls.models.resnet import ResNet


class ZeroPad(nn.Module):
    """Take every stride-th pixel and add channels of zeros, as many before as after."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, out, H/stride, W/stride]."""
        x = x[:, :, :: self.stride, :: self.stride]
        return pad(x, (0, 0, 0, 0, self.before, self.after))


class ResNetA(ResNet):
    """`ResNet` as Section 4.2 of arXiv:1512.03385 has it for CIFAR: zero-padded identities.

    The paper does not say on which side to pad and how to initialise the classifier; here the zeros
    are on both sides, and every weight is He-normal, as in the code of "Label Optimization".
    """

    def __init__(self, depth: int, num_classes: int = 100) -> None:
        super().__init__(depth, num_classes, shortcut=ZeroPad)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)


MODELS: dict[str, Callable[..., nn.Module]] = {
    f"resnet{depth}_a": partial(ResNetA, depth) for depth in (20, 32, 44, 56, 110)
}
