"""A hook of your own: freeze a part of the student late in a run; see docs/own_hook.md."""

from collections.abc import Mapping
from typing import Any

from kd_core import Hook
from kd_core.errors import UserError, nearest
from kd_core.networks.task import network_of
from kd_core.training.hooks import TrainerLike
from torch import nn


class FreezeOnPlateau(Hook):
    """Freeze a part of the student once a loss has not become smaller for some epochs.

    Args:
        part: Name of a module of the student's network, such as "conv1".
        loss: Name of a loss in the log.
        patience: Epochs without a smaller loss.
    """

    def __init__(self, part: str, loss: str = "loss_ce", patience: int = 2) -> None:
        self.part, self.loss, self.patience = part, loss, patience
        self.smallest, self.waited = float("inf"), 0

    def before_train(self, trainer: TrainerLike) -> None:
        """Reject a name that the student does not have, before the first step."""
        names = dict(network_of(trainer.distiller.student).named_modules())
        if self.part not in names:
            raise UserError(f"the student has no module {self.part!r}{nearest(self.part, names)}")

    def before_epoch(self, trainer: TrainerLike) -> None:
        """Freeze the part when it is time."""
        if self.waited >= self.patience:
            part: nn.Module = network_of(trainer.distiller.student).get_submodule(self.part)
            part.requires_grad_(False)

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Look at the epoch's loss, and add a number to the epoch's line in the log."""
        loss = trainer.record[self.loss]
        self.waited = 0 if loss < self.smallest else self.waited + 1
        self.smallest = min(loss, self.smallest)
        trainer.record["epochs_without_progress"] = self.waited

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"smallest": self.smallest, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.smallest, self.waited = state["smallest"], state["waited"]
