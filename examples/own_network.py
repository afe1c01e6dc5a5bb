"""Your own network: any `nn.Module` that returns logits; see docs/own_network.md."""

from itertools import pairwise

from torch import Tensor, nn


class SmallNet(nn.Module):
    """Three convolutions, of which each but the first halves the map, and a linear classifier.

    Args:
        num_classes: Number of logits.
        width: Channels of the first convolution.
    """

    def __init__(self, num_classes: int = 10, width: int = 16) -> None:
        super().__init__()
        channels = [3, width, 2 * width, 4 * width]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride=1 if before == 3 else 2, padding=1),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
                for before, after in pairwise(channels)
            )
        )
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, 3, H, W]."""
        return self.head(self.blocks(image).mean((2, 3)))
