"""Loggers: console, JSON lines, TensorBoard, Weights & Biases."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kd_core.config.kinds import subclass_of
from kd_core.config.locate import locate
from kd_core.errors import UserError
from kd_core.files.checkpoint import save_text
from kd_core.runtime import json_lines
from kd_core.runtime.console import err, time_left
from kd_core.runtime.system_errors import cannot_write
from kd_core.training.hooks import Hook, TrainerLike
from kd_core.training.peak_memory import gpu_memory

_EVERY = 20  # steps after which a bar shows the memory again


class Logger(Hook):
    """A hook that only looks: it changes nothing of the trainer, and draws no random number.

    So two runs with other loggers give the same result, and may take one another's place. It runs
    in the first process alone, and what it remembers is not in checkpoints.
    """

    for_trainer = False
    package: ClassVar[str | None] = None
    """Package that it needs, beside this project."""


LOGGER = subclass_of("a logger", Logger)


def require_installed(logger: Any) -> None:
    """Reject a logger, by class or by import path, whose package is not installed."""
    kind = locate(logger) if isinstance(logger, str) else logger
    if kind.package and not is_installed(kind.package):
        raise UserError(
            f"{kind.__name__} needs the package {kind.package} (pip install {kind.package}); or "
            "leave it out of trainer.loggers, log.jsonl is written without it"
        )


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None


class JsonLog(Logger):
    """Write `log.jsonl`, a line an epoch; a resumed run continues the file without gaps."""

    def before_train(self, trainer: TrainerLike) -> None:
        """Write the epochs of the resumed run, dropping any line that came after its checkpoint."""
        self._write(trainer.work_dir / "log.jsonl", trainer.history)

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Add a line."""
        self._write(trainer.work_dir / "log.jsonl", trainer.history)

    def _write(self, path: Path, history: list[dict[str, Any]]) -> None:
        save_text("".join(json.dumps(record) + "\n" for record in history), path)


class StdoutLog(Logger):
    """Write every epoch's record as a line of JSON to stdout, where `--json` asks for it."""

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Write the line."""
        json_lines.say("epoch", run=str(trainer.work_dir), record=trainer.record)


class TensorBoardLog(Logger):
    """Write the epoch's record for TensorBoard: numbers as scalars, texts as texts."""

    package = "tensorboard"

    def __init__(self) -> None:
        require_installed(type(self))
        from torch.utils.tensorboard import SummaryWriter

        self._writer_class = SummaryWriter
        self._writer: Any = None

    def before_train(self, trainer: TrainerLike) -> None:
        """Open the event file; steps after the resumed one are hidden."""
        folder = trainer.work_dir / "tensorboard"
        with _explained(folder):
            self._writer = self._writer_class(str(folder), purge_step=trainer.epoch + 1)

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Write the record."""
        with _explained(trainer.work_dir / "tensorboard"):
            for name, value in trainer.record.items():
                if isinstance(value, str):
                    self._writer.add_text(name, value, trainer.epoch)
                elif value is not None:
                    self._writer.add_scalar(name, value, trainer.epoch)
            self._writer.flush()  # its thread writes; an error of the thread shows here

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            with _explained(Path(self._writer.get_logdir())):
                self._writer.close()


class WandbLog(Logger):
    """Send every epoch's record to Weights & Biases; only when a config asks for it.

    Args:
        settings: Arguments of `wandb.init`, such as project and name.
    """

    package = "wandb"

    def __init__(self, **settings: Any) -> None:
        require_installed(type(self))
        import wandb

        self._wandb, self._settings = wandb, settings
        self._run: Any = None

    def before_train(self, trainer: TrainerLike) -> None:
        """Start the run, or continue the one whose name the folder holds."""
        arguments = {"dir": str(trainer.work_dir), "resume": "allow"}
        name = trainer.work_dir / "wandb_id.txt"
        if trainer.steps_done and name.is_file():
            arguments["id"] = name.read_text(encoding="utf-8")
        self._run = self._wandb.init(**{**arguments, **self._settings})
        save_text(self._run.id, name)

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Send the record."""
        self._run.log(trainer.record, step=trainer.epoch)

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Name the folder that cannot be written."""
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error) or error from error


class ProgressLog(Logger):
    """Show a bar with the remaining time on a terminal, and lines everywhere.

    A line is printed for every epoch that was evaluated, and otherwise every `seconds`.

    Args:
        metric: Name of the metric that defines the best epoch.
        seconds: Longest silence.
        device: Whose memory is shown, if it is a GPU.
    """

    def __init__(
        self, metric: str, *, seconds: float = 60.0, device: torch.device | None = None
    ) -> None:
        self.metric = metric
        self.seconds = seconds
        self.device = device
        self._bar: Progress | None = None
        self._started = self._said = 0.0
        self._steps_before = 0

    def before_train(self, trainer: TrainerLike) -> None:
        """Start the clock and the bar."""
        self._started = self._said = time.monotonic()
        self._steps_before = trainer.steps_done
        if err.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[memory]}"),
                console=err,
                transient=True,
            )
            total, done = trainer.total_steps, trainer.steps_done
            self._bar.add_task("steps", total=total, completed=done, memory="")
            self._bar.start()

    def after_step(self, trainer: TrainerLike) -> None:
        """Move the bar, or break a long silence."""
        if self._bar is not None:
            done = trainer.steps_done
            memory: dict[str, Any] = (
                {"memory": gpu_memory(self.device)} if done % _EVERY == 0 else {}
            )
            self._bar.update(self._bar.task_ids[0], completed=done, **memory)
        elif time.monotonic() - self._said > self.seconds:
            means = "  ".join(
                f"{name} {mean:.4g}" for name, mean in trainer.meter.means(local=True).items()
            )
            step = f"{trainer.step_in_epoch}/{trainer.steps_per_epoch}"
            self._say(f"epoch {trainer.epoch + 1}  step {step}  {means}  {self._eta(trainer)}")

    def after_epoch(self, trainer: TrainerLike) -> None:
        """Print the epoch's record."""
        if self.metric not in trainer.record and time.monotonic() - self._said < self.seconds:
            return
        values = {
            name: value
            for name, value in trainer.record.items()
            if name not in ("epoch", "step", "seconds") and "/" not in name  # of one class
        }
        numbers = "  ".join(
            f"{name.removeprefix('loss_')} {v if v is None or isinstance(v, str) else f'{v:.4g}'}"
            for name, v in values.items()
        )
        best = ""
        if trainer.best:
            best = f"  (best {trainer.best[self.metric]:.4g} @{trainer.best['epoch']})"
        memory = gpu_memory(self.device)
        end = f"{self._eta(trainer)}{'  ' if memory else ''}{memory}"
        self._say(f"epoch {trainer.epoch}/{trainer.epochs}  {numbers}{best}  {end}")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _eta(self, trainer: TrainerLike) -> str:
        done = trainer.steps_done - self._steps_before
        left = trainer.total_steps - trainer.steps_done
        return time_left(time.monotonic() - self._started, done, left)

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        err.print(text)
