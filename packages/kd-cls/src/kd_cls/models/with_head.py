"""A linear classifier on the features of a network that has none."""

from typing import Annotated

from kd_core.config.kinds import MODULE
from kd_core.config.values import PositiveInt
from kd_core.networks.tap_paths import entry
from torch import Tensor, nn


class WithHead(nn.Module):
    """A network that ends in features, and a linear layer from these to logits.

    Args:
        backbone: Gives features [N, D] or [N, D, 1, 1], or has them among its outputs.
        in_features: D.
        num_classes: Number of logits.
        output: Name or number of the features, where the backbone gives several values.
    """

    def __init__(
        self,
        backbone: Annotated[nn.Module, MODULE],
        in_features: PositiveInt,
        num_classes: PositiveInt,
        output: str | int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(in_features, num_classes)
        self.output = output

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [N, num_classes] of images [N, C, H, W]."""
        features = self.backbone(image)
        if self.output is not None:
            features = entry(features, str(self.output), f"output={self.output!r}")
        logits: Tensor = self.head(features.flatten(1))
        return logits
