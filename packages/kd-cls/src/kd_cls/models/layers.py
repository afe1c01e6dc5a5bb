"""Layers and initialisation that several families share.

No activation works in place: any layer can be tapped.
"""

from torch import Tensor, nn


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """Return a convolution that keeps height and width at stride 1."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=bias,
    )


class ChannelShuffle(nn.Module):
    """Interleave the channels of `groups` groups: (g, C/g) becomes (C/g, g).

    ShuffleNet, arXiv:1707.01083. Unlike `torch.nn.ChannelShuffle` it exports to ONNX.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


def init_convolutions(network: nn.Module) -> None:
    """Draw every convolution from N(0, 2 / (k² · out channels)), with biases 0.

    He et al., arXiv:1502.01852, counted over the outputs.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_classifier(classifier: nn.Linear) -> None:
    """Draw the weight from N(0, 0.01²), with bias 0."""
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
