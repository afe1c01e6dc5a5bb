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

from kd_core.config.kinds import Kind, makes
from kd_core.config.values import NonNegative, Positive, PositiveInt, Share, checked
from kd_core.errors import UserError

SCHEDULE = Kind(
    "a schedule",
    lambda found: makes(found, ParamScheduler),
    "a function that says that it returns one: `-> fvcore.common.param_scheduler.ParamScheduler`",
)


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
