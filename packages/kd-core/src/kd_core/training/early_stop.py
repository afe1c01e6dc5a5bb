"""EarlyStop: end a training once a metric does not improve any more."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from kd_core.config.node import Node, parse_call
from kd_core.config.values import NonNegative, PositiveInt
from kd_core.errors import UserError, nearest
from kd_core.runtime import distributed
from kd_core.training.hooks import Evaluate, Hook, TrainerLike

_FOR_IT = ("evaluate", "default", "prefix", "chosen_on")


class EarlyStop(Hook):
    """Ends the training when a metric has not improved for some epochs.

    Whether it has ended follows from the records of the epochs, so a resumed run ends where the
    uninterrupted one does. The learning rate keeps the schedule of all `trainer.epochs`. What is
    exported is the last epoch, as ever; the best one is in `best.pth`.

    Args:
        patience: Epochs without improvement after which the training ends; it is looked at
            wherever an epoch is evaluated.
        min_delta: Improvements up to this do not count.
        metric: Of the evaluation, such as "cross_entropy"; None takes that of the best epoch.
        mode: Whether "max" or "min" is good; it goes with `metric`.
        evaluate: Gives the metrics, of the validation set if there is one.
        default: The metric that defines the best epoch; larger is better.
        prefix: Of the metrics' names in the record, "val_" for a validation set.
        chosen_on: What the end is chosen on.

    Raises:
        UserError: If `metric` comes without `mode`, or the other way round.
    """

    for_trainer: ClassVar[bool] = False  # it is `trainer.early_stop`

    def __init__(
        self,
        *,
        patience: PositiveInt,
        min_delta: NonNegative = 0.0,
        metric: str | None = None,
        mode: Literal["max", "min"] | None = None,
        evaluate: Evaluate,
        default: str,
        prefix: str = "",
        chosen_on: str = "test data",
    ) -> None:
        self.patience, self.min_delta, self.evaluate = patience, min_delta, evaluate
        self.sign = -1.0 if mode == "min" else 1.0
        self.own, self.metric, self.chosen_on = metric, prefix + (metric or default), chosen_on

    def before_train(self, trainer: TrainerLike) -> None:
        """Print what is looked at, and end a training that had ended before."""
        if self.own is not None and not trainer.history:
            names = self.evaluate(trainer.predictor())  # rather than after an epoch
            if self.own not in names:
                raise UserError(
                    f"trainer.early_stop.metric: the evaluation gives no {self.own!r}"
                    f"{nearest(self.own, names)}"
                )
        distributed.print_note(
            f"early stop: after {self.patience} epochs in which {self.metric} has not "
            f"improved; the end is chosen on the {self.chosen_on}, as the best epoch is"
        )
        if trainer.history:
            self._look(trainer)

    def after_epoch(self, trainer: TrainerLike) -> None:
        """End the training if it is time."""
        if self.metric in trainer.record:
            self._look(trainer)

    def _look(self, trainer: TrainerLike) -> None:
        history = trainer.history
        best = best_epoch(history, self.metric, self.sign, self.min_delta)
        ends = trainer.epoch - best >= self.patience and self.metric in history[-1]
        if not distributed.any_process(ends, trainer.distiller.steps.device):
            return
        trainer.stopped = True
        if trainer.epoch < trainer.epochs:
            distributed.print_note(
                f"early stop after epoch {trainer.epoch} of {trainer.epochs}: {self.metric} has "
                f"not improved since epoch {best}"
            )


def best_epoch(
    history: Sequence[Mapping[str, Any]], metric: str, sign: float, min_delta: float
) -> int:
    """Return the last epoch that improved a metric by more than `min_delta`; 0 if none did."""
    best, epoch = -float("inf"), 0
    for record in history:
        value = sign * record.get(metric, float("nan"))
        if value > best + min_delta:
            best, epoch = value, record["epoch"]
    return epoch


def parse_early_stop(node: Mapping[str, Any]) -> Node:
    """Check `trainer.early_stop` and return it for `build_early_stop`.

    Raises:
        UserError: If a key is unknown or missing, or a value is wrong.
    """
    where = "trainer.early_stop"
    call = parse_call(EarlyStop, node, where, provided=_FOR_IT)
    if (call.get("metric") is None) != (call.get("mode") is None):
        raise UserError(
            f"{where}: set both metric and mode, 'max' or 'min', which says what is better; or "
            "none of them for the metric that defines the best epoch"
        )
    return call
