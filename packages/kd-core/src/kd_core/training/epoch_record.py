"""The record of a finished epoch: what the log shows of it before hooks add to it."""

from typing import Any

from kd_core.networks.task import Task
from kd_core.training.hooks import TrainerLike


def epoch_record(trainer: TrainerLike) -> dict[str, Any]:
    """Return position, rate, mean losses and speed; waits for the device."""
    record = {"epoch": trainer.epoch, "step": trainer.steps_done, "lr": trainer.learning_rate}
    record |= {f"loss_{name}": value for name, value in trainer.meter.means().items()}
    if trainer.loss_scale is not None:
        record |= trainer.loss_scale.record()
    if isinstance(trainer.distiller.student, Task):
        record |= trainer.distiller.student.training_metrics()
    images = len(trainer.loader) * trainer.loader.batch_size
    speed = images / max(trainer.seconds - trainer.epoch_began, 1e-9)
    return record | {"images_per_second": round(speed, 1), "seconds": round(trainer.seconds, 3)}
