"""Several students on one pass over data and teachers: trainers that alternate."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kd_core.data.loader import Loader
from kd_core.distill.distiller import Distiller
from kd_core.distill.teacher import Teacher
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from kd_core.runtime.seed import rng_state, set_rng_state
from kd_core.runtime.signals import Interrupted, StopSignal
from kd_core.training.meter import NonFiniteLossError
from kd_core.training.step import PRECISIONS
from kd_core.training.trainer import Trainer


class SharedLoader:
    """Gives several trainers the same batches; each batch is made once.

    A batch is kept until all trainers have used it. A trainer at another position, because it was
    resumed there, gets its own batches.

    Args:
        loader: Makes the batches.
        accumulate: Batches that a trainer takes in one turn.
    """

    def __init__(self, loader: Loader, accumulate: int = 1) -> None:
        self.loader, self.batch_size, self.accumulate = loader, loader.batch_size, accumulate
        self._kept: OrderedDict[tuple[int, int], Batch] = OrderedDict()
        self._next = (-1, 0)
        self._batches: Iterator[Batch] = iter(())

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        for number in range(start, len(self)):
            yield self._batch(epoch, number).copy()

    def _batch(self, epoch: int, number: int) -> Batch:
        place = epoch, number
        if place not in self._kept:
            if place != self._next:
                self._batches = self.loader.epoch(epoch, number)
            self._kept[place] = next(self._batches)
            self._next = epoch, number + 1
            while len(self._kept) > self.accumulate:
                self._kept.popitem(last=False)
        return self._kept[place]


class WithTeachers:
    """A loader whose batches have the teacher features for all students.

    Args:
        loader: Makes the batches.
        teachers: By name, with their taps set.
        precision: Of the teachers; see `TrainStep`.
    """

    def __init__(
        self, loader: Loader, teachers: Mapping[str, Teacher], *, precision: str = "fp32"
    ) -> None:
        self.loader, self.batch_size = loader, loader.batch_size
        self.teachers, self.dtype = dict(teachers), PRECISIONS[precision]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        for batch in self.loader.epoch(epoch, start):
            kind = batch["image"].device.type
            with torch.autocast(kind, self.dtype, enabled=self.dtype is not None):
                teacher_features = {name: teacher(batch) for name, teacher in self.teachers.items()}
            yield {**batch, "teacher_features": teacher_features}


@dataclass
class Turn:
    """A trainer that alternates with others.

    Args:
        trainer: Not started yet.
        steps: Its steps, and the work after them; see `Trainer.steps`.
        state: Of its random generators at the start; see `rng_state`.
    """

    trainer: Trainer
    steps: Iterator[None]
    state: dict[str, Any]

    def take(self) -> bool:
        """Take a step with the trainer's own random numbers; return whether there was one."""
        set_rng_state(self.state)
        try:
            return next(self.steps, self) is not self
        finally:
            self.state = rng_state()


def train_in_turns(turns: Iterable[Turn]) -> None:
    """Train all to the end, a step each in turn; trainers that are behind go first.

    Raises:
        Interrupted: After SIGINT or SIGTERM, once all have written their `last.pth`.
        UserError: If one has failed, once all others are finished; of several processes, which
            then all end, at once.
    """
    stop, active = StopSignal(), list(turns)
    for turn in active:
        turn.trainer.stop = stop
    problem: Interrupted | UserError | None = None
    while active:
        behind = min(turn.trainer.steps_done for turn in active)
        for turn in [turn for turn in active if turn.trainer.steps_done == behind]:
            try:
                if not turn.take():
                    active.remove(turn)
            except (Interrupted, UserError) as error:
                if not _met_by_all(error):
                    raise
                problem = problem or error
                active.remove(turn)
    if problem is not None:
        raise problem


def _met_by_all(error: BaseException) -> bool:
    """Return whether all processes meet an error at the same step.

    Of any other the others know nothing, and would wait for this process.
    """
    return not distributed.is_distributed() or isinstance(error, Interrupted | NonFiniteLossError)


def shared_teachers(
    distillers: Sequence[Distiller], sample: Batch, precision: str
) -> dict[str, Teacher]:
    """Return the teachers that these distillers share, with the taps of all."""
    shared = {}
    for name, teacher in distillers[0].teachers.items():
        holders = [distiller for distiller in distillers if name in distiller.teachers]
        paths = [path for distiller in holders for path in distiller.teacher_paths(name)]
        # Each distiller builds and runs its own ensembles.
        if paths and all(each.teachers[name].model is teacher.model for each in holders):
            shared[name] = Teacher(teacher.model)
            shared[name].infer_shapes(paths, sample)
            shared[name].accelerate(sample, PRECISIONS[precision])
    return shared
