"""Hook: code that runs between training steps; method names as in Detectron2."""

import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from kd_core.config.kinds import Kind, is_subclass, name_of
from kd_core.config.parameters import call_problem
from kd_core.config.values import NonNegative, PositiveInt, checked
from kd_core.data.loader import Loader
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError, nearest
from kd_core.files import checkpoint
from kd_core.networks.task import network_of
from kd_core.runtime import distributed
from kd_core.training.ema import ModelAverage
from kd_core.training.loss_scale import LossScale
from kd_core.training.meter import LossMeter

Evaluate = Callable[[nn.Module], dict[str, float]]

_PLAIN = (int, float, bool, str, type(None))


class TrainerLike(Protocol):
    """What a hook may use of the trainer that calls it; see `kd_core.training.trainer.Trainer`."""

    distiller: Distiller
    optimizer: Optimizer
    average: ModelAverage | None
    work_dir: Path
    epoch: int  # finished ones
    epochs: int
    step_in_epoch: int
    steps_per_epoch: int
    seconds: float  # of training, without evaluation
    epoch_began: float  # at so many of these seconds
    made_by: str | None
    loader: Loader
    loss_scale: LossScale | None  # of precision=fp16
    stopped: bool  # whether the training ends with this epoch; a hook may set it in after_epoch
    hooks: "list[Hook]"
    losses: dict[str, Tensor]  # of the step that was taken last, on the device
    meter: LossMeter
    record: dict[str, Any]  # of the epoch that was finished last
    history: list[dict[str, Any]]  # all records
    best: dict[str, Any]  # of the best epoch so far

    @property
    def steps_done(self) -> int:
        """Return the number of optimizer steps taken so far."""

    @property
    def total_steps(self) -> int:
        """Return the number of optimizer steps of the whole run."""

    @property
    def ended(self) -> bool:
        """Return whether the epoch that was finished last is the last of all."""

    @property
    def learning_rate(self) -> float:
        """Return the rate of the step that was taken last."""

    def predictor(self) -> nn.Module:
        """Return the task that is evaluated and deployed, in eval mode."""

    def save(self, path: Path) -> None:
        """Write a checkpoint that a run resumes from; raise if anything is not finite."""

    def any_rank(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; the same answer in all."""


class Hook:
    """Methods that the trainer calls; override what is needed. All are no-ops here.

    A hook that remembers something overrides `state_dict` and `load_state_dict`: what the first
    returns is kept in every checkpoint, under the class's name, and a resumed run gets it back
    after `__init__` and before `before_train`. It may hold tensors, numbers, texts, None, and lists
    and dicts of these.

    Checkpoints are written at the end of a step or an epoch, after all hooks saw it. A run that is
    resumed inside an epoch calls `before_train` and `before_epoch` again.
    """

    for_trainer: ClassVar[bool] = True
    """Whether it belongs into `trainer.hooks`; a `Logger` does not."""

    def before_train(self, trainer: TrainerLike) -> None:
        """Run once, after a checkpoint was resumed."""

    def after_train(self, trainer: TrainerLike) -> None:
        """Run once, after the last epoch; not when training failed."""

    def before_epoch(self, trainer: TrainerLike) -> None:
        """Run before each epoch; `trainer.epoch` counts the finished ones."""

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Run after each epoch; `trainer.epoch` includes it, `trainer.record` is its log line."""

    def before_step(self, trainer: TrainerLike) -> None:
        """Run before each optimizer step."""

    def after_step(self, trainer: TrainerLike) -> None:
        """Run after each optimizer step; `trainer.losses` holds its losses, on the device."""

    def close(self) -> None:
        """Release what was opened; run also when training failed."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs; with several processes, that of the first."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; tensors come on the host."""


def check_methods(hook: type[Hook]) -> None:
    """Reject a class with a method that the trainer would not call, or could not.

    Raises:
        UserError: Names the method, and the one that was perhaps meant.
    """
    known = {name: method for name, method in vars(Hook).items() if inspect.isfunction(method)}
    for name in dir(hook):
        is_ours = name in known or not name.startswith(("before_", "after_"))
        if not is_ours and inspect.isroutine(getattr(hook, name)):  # it may have values so named
            raise UserError(
                f"hook {name_of(hook)}: {name} is a method that the trainer does not call (if you "
                f"do, begin its name with _){nearest(name, known)}"
            )
    for name, method in known.items():
        if problem := call_problem(hook, name, *list(inspect.signature(method).parameters)[1:]):
            raise UserError(f"hook {name_of(hook)}: {name} {problem}")


HOOK = Kind(
    "a hook that acts on training",
    lambda found: is_subclass(found, Hook) and found.for_trainer,
    "a subclass of kd_core.Hook; one of kd_core.training.loggers.Logger goes to trainer.loggers",
)


def make_plain(record: dict[str, Any], source: str) -> None:
    """Bring the values of a record, as they are logged, into Python's own types.

    Args:
        record: Numbers, texts or None by name; arrays and tensors of one number are converted.
        source: Who gave it, for the message.

    Raises:
        UserError: If a value is something else.
    """
    for name, value in record.items():
        if type(value) in _PLAIN:
            continue
        try:
            record[name] = value.item()
        except (AttributeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{source} gave {name!r} as {value!r:.40}; wanted a number, a text or None"
            ) from error


class EvaluateHook(Hook):
    """Evaluate the network to deploy, every so many epochs and after the last.

    The metrics enter the epoch's record; the best epoch so far, its metrics and its weights are
    kept as `trainer.best` and `best.pth`.

    Args:
        evaluate: From a model in eval mode to named metrics, in every process.
        metric: Name of the metric that defines the best epoch; larger is better.
        every: Epochs between evaluations.
        prefix: Of the metrics' names in the record, for instance "val_".
    """

    @checked
    def __init__(
        self, evaluate: Evaluate, metric: str, *, every: PositiveInt = 1, prefix: str = ""
    ) -> None:
        self.evaluate = evaluate
        self.metric = prefix + metric
        self.every = every
        self.prefix = prefix

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Evaluate when it is time."""
        if trainer.epoch % self.every and trainer.epoch < trainer.epochs:
            return
        model = trainer.predictor()
        metrics = {self.prefix + name: value for name, value in self.evaluate(model).items()}
        make_plain(metrics, "the evaluation")
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

    @checked
    def __init__(
        self,
        *,
        epochs: PositiveInt = 1,
        minutes: NonNegative = 10.0,
        keep_every: PositiveInt | None = None,
    ) -> None:
        self.epochs = epochs
        self.minutes = minutes
        self.keep_every = keep_every
        self._saved_at = 0.0

    def before_train(self, trainer: TrainerLike) -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()

    def after_step(self, trainer: TrainerLike) -> None:
        """Save inside an epoch when the time has come."""
        # Every process has a clock of its own, but all must save at the same step.
        if trainer.any_rank(time.monotonic() - self._saved_at >= 60 * self.minutes):
            self._save(trainer, trainer.work_dir / "last.pth")

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Save between epochs."""
        if trainer.ended or trainer.epoch % self.epochs == 0:
            self._save(trainer, trainer.work_dir / "last.pth")
        if self.keep_every and trainer.epoch % self.keep_every == 0:
            self._save(trainer, trainer.work_dir / f"epoch_{trainer.epoch:04d}.pth")

    def _save(self, trainer: TrainerLike, path: Path) -> None:
        trainer.save(path)
        self._saved_at = time.monotonic()
