"""Exponential moving average of the student's network."""

import torch
from torch import Tensor, nn

from kd_core.config.values import Decay, checked
from kd_core.networks.copying import copied


class ModelAverage:
    """Keeps a copy of a network with the moving average of its weights.

    (torch's AveragedModel reads its step counter on the host, which a captured training step must
    not do.)

    Args:
        network: The network to average.
        decay: Share of the old average that each step keeps, e.g. 0.999.
        warmup: Keep less of it at first, 1 - 1 / (step + 1) in step 0, 1, 2, so that the average is
            that of all weights so far until `decay` is reached.

    Raises:
        UserError: If `decay` is not between 0 and 1.
    """

    @checked
    def __init__(self, network: nn.Module, decay: Decay, *, warmup: bool = False) -> None:
        self.network = copied(network).requires_grad_(False).eval()
        self.decay, self.warmup = decay, warmup

    @torch.no_grad()
    def update(self, network: nn.Module, step: int = 0) -> None:
        """Move the average one step towards the network; counters and statistics are copied.

        Args:
            network: The network after an optimizer step.
            step: Number of steps before that one, for the warm-up.
        """
        decay = min(self.decay, 1 - 1 / (step + 1)) if self.warmup else self.decay
        average: list[Tensor] = list(self.network.parameters())
        current: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(average, current, 1 - decay)
        for kept, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(buffer)
