"""Learning-rate schedules: factors of the initial rate, from fvcore's parameter schedulers."""

from collections.abc import Sequence

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from torch import Tensor
from torch.optim import Optimizer

from kd_core.config.kinds import Kind, makes
from kd_core.config.values import NonNegative, Positive, PositiveInt, Share, checked
from kd_core.errors import UserError

SCHEDULE = Kind(
    "a schedule",
    lambda found: makes(found, ParamScheduler),
    "a function that says that it returns one: `-> fvcore.common.param_scheduler.ParamScheduler`",
)


class ScheduledRates:
    """The rates of an optimizer's parameter groups, each its own times the schedule's factor.

    Args:
        optimizer: With the initial rates in its groups; one may be a tensor of the device.
        schedule: Factor of the initial rate, of the share of the run that is done.

    Raises:
        UserError: If a group has no rate.
    """

    def __init__(self, optimizer: Optimizer, schedule: ParamScheduler) -> None:
        self.optimizer, self.schedule = optimizer, schedule
        if not all("lr" in group for group in optimizer.param_groups):
            raise UserError(
                f"optimizer: {type(optimizer).__name__} keeps no `lr` in its groups that a "
                "schedule could scale; take another"
            )
        self.initial = [float(group["lr"]) for group in optimizer.param_groups]

    def first(self, step: int, steps: int) -> float:
        """Return the rate of the first group in a step, counted from 0, of so many."""
        return self.initial[0] * self._factor(step, steps)

    def set(self, step: int, steps: int) -> None:
        """Write every group's rate of a step, in the same memory."""
        factor = self._factor(step, steps)
        for group, rate in zip(self.optimizer.param_groups, self.initial, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor

    def _factor(self, step: int, steps: int) -> float:
        # The middle of the step, so that a milestone falls exactly between two epochs.
        return float(self.schedule((step + 0.5) / steps))


@checked
def multi_step(
    *,
    epochs: PositiveInt,
    milestones: Sequence[PositiveInt],
    gamma: Positive = 0.1,
    warmup_epochs: NonNegative = 0.0,
    warmup_start: Share = 0.01,
) -> ParamScheduler:
    """Multiply the rate by `gamma` after each milestone: 150 first changes the 151st epoch.

    Milestones beyond `epochs` are never reached, as in recipes that are run shorter.

    Args:
        epochs: Length of the run.
        milestones: Epochs after which the rate falls, rising.
        gamma: Factor at each milestone.
        warmup_epochs: Epochs of linear growth at the start.
        warmup_start: Factor from which the warm-up grows.
    """
    if sorted({0, *milestones}) != [0, *milestones]:
        raise UserError(f"schedule.milestones {list(milestones)} must rise, and begin above 0")
    reached = [milestone for milestone in milestones if milestone < epochs]
    steps: ParamScheduler = ConstantParamScheduler(1.0)
    if reached:
        values = [gamma**count for count in range(len(reached) + 1)]
        steps = MultiStepParamScheduler(values, num_updates=epochs, milestones=reached)
        # It would round up by a millionth of the run, which is whole steps of a long one; the
        # trainer asks at the middle of a step, where there is nothing to round.
        steps.WHERE_EPSILON = 0.0
    return _with_warmup(steps, epochs, warmup_epochs, warmup_start)


@checked
def cosine(
    *,
    epochs: PositiveInt,
    end: Share = 0.0,
    warmup_epochs: NonNegative = 0.0,
    warmup_start: Share = 0.01,
) -> ParamScheduler:
    """Let the rate fall along half a cosine to the factor `end`, after an optional warm-up."""
    return _with_warmup(CosineParamScheduler(1.0, end), epochs, warmup_epochs, warmup_start)


@checked
def constant(
    *, epochs: PositiveInt, warmup_epochs: NonNegative = 0.0, warmup_start: Share = 0.01
) -> ParamScheduler:
    """Keep the rate as it is, after an optional warm-up."""
    return _with_warmup(ConstantParamScheduler(1.0), epochs, warmup_epochs, warmup_start)


def _with_warmup(
    schedule: ParamScheduler, epochs: int, warmup_epochs: float, warmup_start: float
) -> ParamScheduler:
    """Replace the beginning of a schedule, which keeps its own clock, by linear growth."""
    if not warmup_epochs:
        return schedule
    if not 0 < warmup_epochs < epochs:
        raise UserError(f"schedule.warmup_epochs is {warmup_epochs}, of {epochs} epochs in all")
    share = warmup_epochs / epochs
    return CompositeParamScheduler(
        [LinearParamScheduler(warmup_start, schedule(share)), schedule],
        lengths=[share, 1 - share],
        interval_scaling=["rescaled", "fixed"],
    )
