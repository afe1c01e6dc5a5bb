"""Wraps a network with its task loss."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kd_core.errors import UserError

Batch = dict[str, Any]


class Task(nn.Module):
    """Wraps a network with its task: returns a dict of losses in training, else a prediction.

    Taps, exported weights and FLOP counts refer to `network`, the plain module that users know, so
    their names do not contain the wrapper. A model that is its own task (a Detectron2
    meta-architecture) need not be wrapped.

    Args:
        network: The plain network.
        roles: Its tap paths by role, shallow to deep; see `kd_core.networks.roles`.
    """

    changes_data: ClassVar[bool] = False
    """Whether training changes which samples come next, so that students cannot share a pass."""

    def __init__(
        self, network: nn.Module, *, roles: Mapping[str, str | Sequence[str]] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.roles = dict(roles or {})
        self.channels_last = False

    def forward(self, batch: Batch) -> Any:
        """Return named scalar losses while training, else the prediction."""
        raise NotImplementedError

    def passes(self, batch: Batch) -> int:
        """Return in how many passes of the network a call runs, each over an equal part of a batch.

        The parts are in the batch's order. Taps join their values in these passes.
        """
        return 1

    def training_metrics(self) -> dict[str, float]:
        """Return what all processes measured in training since the last call, or nothing."""
        return {}

    def set_ema(self, network: nn.Module) -> None:
        """Receive the moving average of the network, if the trainer keeps one."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch of training, counted from 0; called in training mode."""

    def products(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights that a finished run writes, by file name.

        Those of `student` must fit the plain network.
        """
        return {"student": self.network.state_dict()}

    def use_channels_last(self, flag: bool = True) -> None:
        """Set whether the network is in NHWC memory; a subclass converts its images too."""
        self.channels_last = flag
        self.to(memory_format=torch.channels_last if flag else torch.contiguous_format)


def network_of(model: nn.Module) -> nn.Module:
    """Return the network inside a `Task`, or the model itself."""
    return model.network if isinstance(model, Task) else model


def passes_of(model: nn.Module, batch: Batch) -> int:
    """Return in how many passes a model runs over a batch; see `Task.passes`."""
    return model.passes(batch) if isinstance(model, Task) else 1


def refuse_untrainable(student: nn.Module) -> None:
    """Reject a student without parameters to train, or with parameters sharded over processes."""
    for name, module in student.named_modules():
        if ".quantized." in f"{type(module).__module__}.":
            raise UserError(
                f"student module {name!r} is quantised, so it has no weights to train; take the "
                "network before quantisation"
            )
        if type(module).__name__.startswith(("FullySharded", "FSDP")):
            raise UserError(
                f"student module {name or '(the whole)'!r} is sharded by FSDP, so its parameters "
                "are not whole where criteria read them; use DDP (torchrun does)"
            )
