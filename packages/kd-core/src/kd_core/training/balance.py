"""What criteria must know of teachers' features before the first step: PHI-S's estimate."""

import torch
from torch import nn

from kd_core.criteria.balancers import PhiS
from kd_core.data.loader import Loader
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import tap_tuple
from kd_core.errors import located
from kd_core.networks.batch_names import by_our_names
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.training.hooks import Hook, TrainerLike
from kd_core.training.step import PRECISIONS

IMAGES = 4096


class BalanceHook(Hook):
    """Estimates PHI-S before the first step; a resumed run has it from its checkpoint.

    Args:
        loader: Training batches. Not the trainer's: with a shared teacher, that one is shared too.
        precision: Of the teachers; see `TrainStep`.
    """

    for_trainer = False

    def __init__(self, loader: Loader, precision: str) -> None:
        self.loader, self.precision = loader, precision

    def before_train(self, trainer: TrainerLike) -> None:
        """Estimate, unless steps were taken."""
        if not trainer.steps_done:
            estimate_balance(trainer.distiller, self.loader, precision=self.precision)


def balance_hooks(distiller: Distiller, loader: Loader, precision: str) -> list[Hook]:
    """Return the hook if a criterion needs it; see `BalanceHook`."""
    wanted = any(_waiting(criterion) for criterion in distiller.criteria.values())
    return [BalanceHook(loader, precision)] if wanted else []


def estimate_balance(
    distiller: Distiller, loader: Loader, *, precision: str = "fp32", images: int = IMAGES
) -> None:
    """Let criteria with `balance="phi_s"` look at teachers' features of the first epoch's images.

    Args:
        distiller: On its device. Its criteria keep the estimate in buffers, which no step changes.
        loader: Training batches; those of the first epoch are taken in order.
        precision: Of the teachers; see `TrainStep`.
        images: How many, in all processes together; fewer if an epoch has fewer.

    Raises:
        UserError: If the features of a teacher are the same for all images, or are not finite.
    """
    waiting = {name: found for name, c in distiller.criteria.items() if (found := _waiting(c))}
    if not waiting:
        return
    dtype, own = PRECISIONS[precision], -(-images // distributed.world_size())
    device, seen = distiller.steps.device, 0
    for batch in loader.epoch(0):
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            teacher_features = distiller.run_teachers(by_our_names(batch))
        for name, balancers in waiting.items():
            values = teacher_features[distiller.source(name)]
            features = tap_tuple(values, distiller.terms[name].teacher)
            for balancer, value in zip(balancers, features, strict=True):
                balancer.add(value)
        seen += len(batch["image"])
        if seen >= own:
            break
    for name, balancers in waiting.items():
        with located(f"term {name!r}"):
            counts = [balancer.finish() for balancer in balancers]
        if distributed.rank() == 0:
            numbers = " and ".join(f"{count:,}" for count in counts)
            widths = [len(balancer.mean) for balancer in balancers]
            few = any(count < 4 * width for count, width in zip(counts, widths, strict=True))
            rough = f"; few for {max(widths):,} channels, so it is rough" if few else ""
            text = f"PHI-S estimated from {numbers} features of the teacher{rough}"
            err.print(f"term {name!r}: {text}")


def _waiting(criterion: nn.Module) -> list[PhiS]:
    """Return what is to be estimated of every tap of a criterion's teacher, in their order."""
    balancers = getattr(criterion, "balancers", ())
    return [balancer for balancer in balancers if isinstance(balancer, PhiS)]
