"""Hook: what happens between training steps, under the names that Detectron2 uses."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from kd_core.files import checkpoint
from kd_core.networks.task import network_of
from kd_core.runtime import distributed

if TYPE_CHECKING:
    from kd_core.training.trainer import Trainer

Evaluate = Callable[[nn.Module], dict[str, float]]


class Hook:
    """Methods that the trainer calls; override what is needed. All are no-ops here."""

    def before_train(self, trainer: "Trainer") -> None:
        """Run once, after a checkpoint was resumed."""

    def after_train(self, trainer: "Trainer") -> None:
        """Run once, after the last epoch; not when training failed."""

    def before_epoch(self, trainer: "Trainer") -> None:
        """Run before each epoch; `trainer.epoch` counts the finished ones."""

    def after_epoch(self, trainer: "Trainer") -> None:
        """Run after each epoch; `trainer.epoch` includes it, `trainer.record` is its log line."""

    def before_step(self, trainer: "Trainer") -> None:
        """Run before each optimizer step."""

    def after_step(self, trainer: "Trainer") -> None:
        """Run after each optimizer step; `trainer.losses` holds its losses, on the device."""

    def close(self) -> None:
        """Release what was opened; run also when training failed."""


class EvaluateHook(Hook):
    """Evaluate what would be deployed, every so many epochs and after the last.

    The metrics enter the epoch's record; the best epoch so far, its metrics and its weights are
    kept as `trainer.best` and `best.pth`.

    Args:
        evaluate: From a model in eval mode to named metrics, in every process.
        metric: Name of the metric that defines the best epoch; larger is better.
        every: Epochs between evaluations.
        prefix: Of the metrics' names in the record, for instance "val_".
    """

    def __init__(
        self, evaluate: Evaluate, metric: str, *, every: int = 1, prefix: str = ""
    ) -> None:
        self.evaluate = evaluate
        self.metric = prefix + metric
        self.every = every
        self.prefix = prefix

    def after_epoch(self, trainer: "Trainer") -> None:
        """Evaluate when it is time."""
        if trainer.epoch % self.every and trainer.epoch < trainer.epochs:
            return
        model = trainer.predictor()
        metrics = {self.prefix + name: value for name, value in self.evaluate(model).items()}
        trainer.record.update(metrics)
        if not trainer.best or metrics[self.metric] > trainer.best[self.metric]:
            trainer.best = {"epoch": trainer.epoch, **metrics}
            if distributed.rank() == 0:
                state = network_of(model).state_dict()
                checkpoint.save({"model": state, **trainer.best}, trainer.work_dir / "best.pth")


class CheckpointHook(Hook):
    """Write `last.pth` after every n epochs and every n minutes, in every case after the last.

    Args:
        epochs: Epochs between checkpoints.
        minutes: Minutes after which one is written also inside an epoch.
        keep_every: Epochs between checkpoints that are kept as `epoch_0010.pth`, or None.
    """

    def __init__(
        self, *, epochs: int = 1, minutes: float = 10.0, keep_every: int | None = None
    ) -> None:
        self.epochs = epochs
        self.minutes = minutes
        self.keep_every = keep_every
        self._saved_at = 0.0

    def before_train(self, trainer: "Trainer") -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()

    def after_step(self, trainer: "Trainer") -> None:
        """Save inside an epoch when the time has come."""
        # Every process has a clock of its own, but all must save at the same step.
        if trainer.any_rank(time.monotonic() - self._saved_at >= 60 * self.minutes):
            self._save(trainer, trainer.work_dir / "last.pth")

    def after_epoch(self, trainer: "Trainer") -> None:
        """Save between epochs."""
        last = trainer.epoch == trainer.epochs
        if last or trainer.epoch % self.epochs == 0:
            self._save(trainer, trainer.work_dir / "last.pth")
        if self.keep_every and trainer.epoch % self.keep_every == 0:
            self._save(trainer, trainer.work_dir / f"epoch_{trainer.epoch:04d}.pth")

    def _save(self, trainer: "Trainer", path: Path) -> None:
        trainer.save(path)
        self._saved_at = time.monotonic()
