"""Trainer: the loop around a training step."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_core.config.values import Decay, PositiveInt, checked
from kd_core.data.loader import Loader
from kd_core.distill.distiller import Distiller
from kd_core.distill.progress import note_schedules
from kd_core.errors import UserError, located
from kd_core.files import checkpoint
from kd_core.files.sound_weights import not_finite
from kd_core.networks.task import Batch, Task, network_of
from kd_core.runtime import distributed
from kd_core.runtime.signals import StopSignal
from kd_core.training import training_state
from kd_core.training.ema import ModelAverage
from kd_core.training.epoch_record import epoch_record
from kd_core.training.hooks import Hook, make_plain
from kd_core.training.loss_scale import LossScale
from kd_core.training.meter import LossMeter, check_weights
from kd_core.training.schedule import ScheduledRates


class Trainer:
    """Train a distiller for some epochs.

    The loop knows positions (epoch, step) and when to call its hooks; everything else is theirs:
    evaluation, checkpoints, logs. On one device a resumed run equals an uninterrupted one bit for
    bit, also from the middle of an epoch, because consumed batches are skipped exactly.

    Args:
        distiller: What is trained, on its device.
        loader: Training batches.
        step: One optimizer step on a list of batches; see `TrainStep`. One that is a `Hook` too is
            called as the last of them; its `loss_scale`, if it has one, is kept and checked.
        optimizer: The one that the step moves.
        schedule: Factor of the initial learning rate, of the share of the run that is done.
        epochs: Number of epochs.
        work_dir: Folder of everything that the run writes.
        hooks: Called in this order.
        accumulate: Batches a step.
        ema: Decay of a moving average of the student, which is then evaluated and deployed.
        ema_warmup: See `ModelAverage`.
        log_every: Steps between NaN checks and synchronisation of ranks.
    """

    @checked
    def __init__(
        self,
        distiller: Distiller,
        loader: Loader,
        step: Callable[[Sequence[Batch]], dict[str, Tensor]],
        optimizer: Optimizer,
        *,
        schedule: ParamScheduler,
        epochs: PositiveInt,
        work_dir: Path,
        hooks: Iterable[Hook] = (),
        accumulate: PositiveInt = 1,
        ema: Decay | None = None,
        ema_warmup: bool = False,
        log_every: PositiveInt = 50,
    ) -> None:
        self.distiller, self.loader, self.step, self.optimizer = distiller, loader, step, optimizer
        self.schedule, self.epochs, self.work_dir = schedule, epochs, work_dir
        self.hooks = [*hooks, *([step] if isinstance(step, Hook) else [])]
        training_state.check_hooks(self.hooks)
        self.accumulate, self.log_every = accumulate, log_every
        network = network_of(distiller.student)
        self.average = None if ema is None else ModelAverage(network, ema, warmup=ema_warmup)
        if self.average and isinstance(distiller.student, Task):
            distiller.student.set_ema(self.average.network)
        self.steps_per_epoch = -(-len(loader) // accumulate)
        if not self.steps_per_epoch:
            raise UserError("the training set has no batch; more images, or fewer processes")
        self.epoch = 0  # finished epochs
        self.step_in_epoch = 0
        self.seconds = 0.0  # of training, without evaluation
        self.epoch_began = 0.0  # at so many of these seconds
        self.stopped = False  # by a hook, before the last epoch
        self.loss_scale: LossScale | None = getattr(step, "loss_scale", None)
        self.losses: dict[str, Tensor] = {}
        self.meter = LossMeter()
        self.record: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self._rates = ScheduledRates(optimizer, schedule)
        self._frozen = [p for p in distiller.parameters() if not p.requires_grad]
        _, self._unbounded = not_finite(distiller)
        self.made_by: str | None = (
            None  # by its config, see `kd_core.experiment.identity.digest_of`
        )
        self.stop = StopSignal()
        distiller.begin(self.steps_per_epoch, epochs)
        if distributed.rank() == 0:
            note_schedules(distiller.terms, epochs)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """Optimizer steps taken so far."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    @property
    def ended(self) -> bool:
        """Whether the epoch that was finished last is the last of all."""
        return self.stopped or self.epoch >= self.epochs

    @property
    def learning_rate(self) -> float:
        """Rate of the first parameter group in the step that was taken last."""
        return self._rates.first(max(self.steps_done - 1, 0), self.total_steps)

    def train(self) -> None:
        """Train from where the run is to the end.

        Raises:
            NonFiniteLossError: If a loss or a weight became NaN or infinite.
            Interrupted: After SIGINT or SIGTERM, once `last.pth` is written.
        """
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        """Train as `train` does, and pause after every step, so that several can take turns."""
        try:
            with self.stop:
                self._call("before_train")
                while not self.ended:
                    yield from self._train_epoch()
                if distributed.any_process(self.stop.received, self.distiller.steps.device):
                    self._leave()  # the signal came after the last step
                self._call("after_train")
        except BaseException:
            for hook in self.hooks:
                with suppress(Exception):  # what failed first is what has to be reported
                    hook.close()
            raise
        for hook in self.hooks:
            hook.close()

    def predictor(self) -> nn.Module:
        """Return what is evaluated and deployed, in eval mode: the average if there is one."""
        network = self.average.network if self.average else None
        return self.distiller.predictor(network).eval()

    def save(self, path: Path) -> None:
        """Write a checkpoint that `resume` continues from; refuse if anything is not finite."""
        self.check_finite()
        state = training_state.collect(self)
        if distributed.rank() == 0:
            checkpoint.save(state, path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            UserError: If it is not one, or of a run with another config.
        """
        remedy = "put an epoch_*.pth of the run in its place; or move it elsewhere, to restart"
        state = checkpoint.load(path, remedy=remedy)
        with located(str(path)):
            training_state.restore(self, state)

    def check_finite(self) -> None:
        """Raise if a loss of this epoch or a weight is not finite; waits for the device."""
        self.meter.check(first_step=self.epoch * self.steps_per_epoch + 1)
        check_weights(self.distiller, self.steps_done, unbounded=self._unbounded)
        if self.loss_scale is not None:
            self.loss_scale.check(self.steps_done)

    def any_rank(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; for use after a step.

        All processes get the same answer at the same step: they are synchronised only every
        `log_every` steps. A single process gets its own flag.
        """
        if not distributed.is_distributed():
            return flag
        on_interval = self.steps_done % self.log_every == 0
        return on_interval and distributed.any_process(flag, self.distiller.steps.device)

    def _train_epoch(self) -> Iterator[None]:
        self.distiller.train()
        for model in (self.distiller.student, *self.distiller.peers.values()):
            if isinstance(model, Task) and model.training:  # not where criteria alone are
                model.begin_epoch(self.epoch)
        for parameter in self._frozen:  # not part of the optimizer, whatever a task says of it
            parameter.requires_grad_(False)
        if not self.step_in_epoch:
            self.epoch_began = self.seconds
        self._call("before_epoch")
        started = time.monotonic() - self.seconds
        batches = self.loader.epoch(self.epoch, start=self.step_in_epoch * self.accumulate)
        while group := list(islice(batches, self.accumulate)):
            self._take_step(group)
            self.seconds = time.monotonic() - started
            self._call("after_step")
            if self.steps_done % self.log_every == 0:
                self.check_finite()
            if self.any_rank(self.stop.received):
                self._leave()
            paused = time.monotonic()
            yield
            started += time.monotonic() - paused  # others' time is not ours
        self.check_finite()
        self.seconds = time.monotonic() - started  # once more: the check waited for the device
        self._finish_epoch()

    def _take_step(self, batches: Sequence[Batch]) -> None:
        self._call("before_step")
        self._rates.set(self.steps_done, self.total_steps)
        self.losses = self.step(batches)
        self.meter.update(self.losses)
        if self.average:
            self.average.update(network_of(self.distiller.student), self.steps_done)
        self.step_in_epoch += 1

    def _finish_epoch(self) -> None:
        distributed.average_buffers(self.distiller.student)
        if self.average:
            distributed.average_buffers(self.average.network)
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.record = epoch_record(self)
        self.history.append(self.record)
        self.meter.reset()
        self._call("after_epoch")

    def _leave(self) -> None:
        self.save(self.work_dir / "last.pth")
        self.stop.leave(self.work_dir)

    def _call(self, name: str) -> None:
        for hook in self.hooks:
            getattr(hook, name)(self)
            if name == "after_epoch":
                make_plain(self.record, f"hook {type(hook).__name__}")
