"""Trainer: the loop around a training step."""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn

from kd_core import checkpoint, distributed
from kd_core.distiller import Distiller
from kd_core.ema import ModelAverage
from kd_core.errors import UserError
from kd_core.hooks import Hook
from kd_core.interrupt import StopSignal
from kd_core.loader import Loader
from kd_core.meter import LossMeter
from kd_core.seed import rng_state, set_rng_state
from kd_core.task import Batch, Task, network_of


class Trainer:
    """Train a distiller for some epochs.

    The loop knows positions (epoch, step) and when to call its hooks; everything else is theirs:
    evaluation, checkpoints, logs. On one device a resumed run equals an uninterrupted one bit for
    bit, also from the middle of an epoch, because consumed batches are skipped exactly.

    Args:
        distiller: What is trained, on its device.
        loader: Training batches.
        step: One optimizer step on a list of batches; see `TrainStep`.
        schedule: Factor of the initial learning rate, of the share of the run that is done.
        epochs: Number of epochs.
        work_dir: Folder of everything that the run writes.
        hooks: Called in this order.
        accumulate: Batches a step.
        ema: Decay of a moving average of the student, which is then evaluated and deployed.
        log_every: Steps between looks at the device: non-finite losses, progress, stop signals of
            other processes.
    """

    def __init__(
        self,
        distiller: Distiller,
        loader: Loader,
        step: Callable[[Sequence[Batch]], dict[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        *,
        schedule: ParamScheduler,
        epochs: int,
        work_dir: Path,
        hooks: Iterable[Hook] = (),
        accumulate: int = 1,
        ema: float | None = None,
        log_every: int = 50,
    ) -> None:
        self.distiller, self.loader, self.step, self.optimizer = distiller, loader, step, optimizer
        self.schedule, self.epochs, self.work_dir = schedule, epochs, work_dir
        self.hooks = list(hooks)
        self.accumulate, self.log_every = accumulate, log_every
        self.average = ModelAverage(network_of(distiller.student), ema) if ema else None
        self.steps_per_epoch = -(-len(loader) // accumulate)
        if not self.steps_per_epoch:
            raise UserError("the training set has no batch; a smaller batch_size, or more images")
        self.epoch = 0  # finished epochs
        self.step_in_epoch = 0
        self.seconds = 0.0
        self.losses: dict[str, Tensor] = {}
        self.meter = LossMeter()
        self.record: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._metered_from = 0
        self._epoch_began = (0, 0.0)
        distiller.begin(self.steps_per_epoch)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """Optimizer steps taken so far."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    @property
    def learning_rate(self) -> float:
        """Rate of the first parameter group in the latest step."""
        return float(self._rates[0] * self._factor(max(self.steps_done - 1, 0)))

    def train(self) -> None:
        """Train from where the run stands to the end.

        Raises:
            NonFiniteLossError: If a loss became NaN or infinite.
            Interrupted: After SIGINT or SIGTERM, once `last.pth` is written.
        """
        with StopSignal() as self._stop:
            try:
                self._call("before_train")
                while self.epoch < self.epochs:
                    self._train_epoch()
                self._call("after_train")
            finally:
                for hook in self.hooks:
                    hook.close()

    def predictor(self) -> nn.Module:
        """Return what is evaluated and deployed, in eval mode: the average if there is one."""
        network = self.average.network if self.average else None
        return self.distiller.predictor(network).eval()

    def save(self, path: Path) -> None:
        """Write a checkpoint that `resume` continues from; refuse after a non-finite loss."""
        self.check_finite()
        if distributed.rank() == 0:
            checkpoint.save(self.state_dict(), path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = checkpoint.load(path)
        if state["steps_per_epoch"] != self.steps_per_epoch:
            raise UserError(
                f"{path} was written with {state['steps_per_epoch']} steps an epoch, this run has "
                f"{self.steps_per_epoch}: the data, batch_size or accumulate differ"
            )
        self.load_state_dict(state)

    def check_finite(self) -> None:
        """Raise if a loss was not finite since the last look; waits for the device."""
        if self.losses:
            self.meter.check(first_step=self._metered_from + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, in plain types and tensors."""
        return {
            "distiller": self.distiller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "meter": self.meter.state_dict(),
            "metered_from": self._metered_from,
            "rng": rng_state(),
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "steps_per_epoch": self.steps_per_epoch,
            "seconds": self.seconds,
            "history": self.history,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.distiller.load_state_dict(state["distiller"])
        self._load_optimizer(state["optimizer"])
        if self.average:
            self.average.network.load_state_dict(state["average"])
        self.meter.load_state_dict(state["meter"], self.distiller.steps.device)
        set_rng_state(state["rng"])
        self._metered_from = state["metered_from"]
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self.seconds, self.history, self.best = state["seconds"], state["history"], state["best"]

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Load the optimizer's state but keep its learning-rate tensors, on their device."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _train_epoch(self) -> None:
        self.distiller.train()
        self._call("before_epoch")
        started = time.monotonic() - self.seconds
        self._epoch_began = (self.steps_done, self.seconds)
        batches = self.loader.epoch(self.epoch, start=self.step_in_epoch * self.accumulate)
        while group := list(islice(batches, self.accumulate)):
            self._call("before_step")
            self._set_learning_rate()
            self.losses = self.step(group)
            self.meter.update(self.losses)
            if self.average:
                self.average.update(network_of(self.distiller.student))
            self.step_in_epoch += 1
            self.seconds = time.monotonic() - started
            self._call("after_step")
            self._look_up()
        self._finish_epoch()

    def _look_up(self) -> None:
        """Stop when asked to; look at the device only every `log_every` steps."""
        on_interval = self.steps_done % self.log_every == 0
        if on_interval:
            self.check_finite()
        if distributed.is_distributed():
            # All processes must agree on the step at which they stop.
            if not on_interval:
                return
            stop = distributed.any_process(self._stop.received, self.distiller.steps.device)
        else:
            stop = self._stop.received
        if stop:
            self.save(self.work_dir / "last.pth")
            self._stop.leave(self.work_dir)

    def _finish_epoch(self) -> None:
        self.check_finite()
        distributed.average_buffers(self.distiller.student)
        rate, speed = self.learning_rate, self._images_per_second()
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.record = {"epoch": self.epoch, "step": self.steps_done, "lr": rate}
        self.record |= {f"loss_{name}": value for name, value in self.meter.means().items()}
        if isinstance(self.distiller.student, Task):
            self.record |= self.distiller.student.training_metrics()
        self.record |= {"images_per_second": speed, "seconds": round(self.seconds, 3)}
        self.history.append(self.record)
        self.meter.reset()
        self._metered_from = self.steps_done
        self._call("after_epoch")

    def _images_per_second(self) -> float:
        steps, seconds = self._epoch_began
        batches = (self.steps_done - steps) * self.accumulate
        return round(batches * self.loader.batch_size / max(self.seconds - seconds, 1e-9), 1)

    def _factor(self, step: int) -> float:
        # The middle of the step, so that a milestone falls exactly between two epochs.
        return float(self.schedule((step + 0.5) / self.total_steps))

    def _set_learning_rate(self) -> None:
        factor = self._factor(self.steps_done)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor

    def _call(self, name: str) -> None:
        for hook in self.hooks:
            getattr(hook, name)(self)
