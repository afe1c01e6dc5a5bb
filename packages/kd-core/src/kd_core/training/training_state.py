"""What a training checkpoint holds, and how a trainer goes on from it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kd_core.errors import UserError
from kd_core.runtime import distributed
from kd_core.runtime.seed import rng_state, set_rng_state
from kd_core.training.state_checks import (
    check_optimizer,
    check_position,
    check_structure,
    check_values,
)

if TYPE_CHECKING:
    from kd_core.training.trainer import Trainer

_POSITION = ("epoch", "step_in_epoch", "seconds", "epoch_began", "history", "best")


def collect(trainer: "Trainer") -> dict[str, Any]:
    """Return everything that the rest of a run depends on, in plain types and tensors."""
    return {
        "distiller": trainer.distiller.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "average": trainer.average.network.state_dict() if trainer.average else None,
        "meter": trainer.meter.state_dict(),
        "rng": rng_state(),
        "steps_per_epoch": trainer.steps_per_epoch,
        "made_by": trainer.made_by,
        **{name: getattr(trainer, name) for name in _POSITION},
    }


def restore(trainer: "Trainer", state: Mapping[str, Any]) -> None:
    """Bring a trainer where `collect` found one that was built from the same config.

    Raises:
        UserError: If the state is damaged, or of other data, another student, other terms or
            another optimizer; nothing is changed then.
    """
    _check(trainer, state)
    _load_optimizer(trainer.optimizer, state["optimizer"])  # first, since it may refuse
    trainer.distiller.load_state_dict(state["distiller"])
    if trainer.average:
        trainer.average.network.load_state_dict(state["average"])
    trainer.meter.load_state_dict(state["meter"], trainer.distiller.steps.device)
    if distributed.rank() == 0:  # whose state it is; with it, all would drop the same units
        set_rng_state(state["rng"])
    for name in _POSITION:
        setattr(trainer, name, state[name])


def _check(trainer: "Trainer", state: Mapping[str, Any]) -> None:
    if "steps_per_epoch" not in state:
        raise UserError("is no training state; a run is resumed from the last.pth that it wrote")
    own = collect(trainer)
    check_structure(state, own)
    _check_config(trainer, state, own)
    check_values(state, own)
    check_position(state, trainer.epochs)
    check_optimizer(state["optimizer"], trainer.optimizer)


def _check_config(trainer: "Trainer", state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a state of another config."""
    if state["steps_per_epoch"] != trainer.steps_per_epoch:
        problem = (
            f"has {state['steps_per_epoch']} steps an epoch, this run {trainer.steps_per_epoch}: "
            "the data, batch_size or accumulate differ"
        )
    elif different := _different(own["distiller"], state["distiller"]):
        problem = f"is of another student or other terms: {different}"
    elif (state["average"] is None) != (own["average"] is None):
        problem = "is of a run with trainer.ema, or this one is, and the other is not"
    elif different := _different(own["average"] or {}, state["average"] or {}):
        problem = f"has an average of another student: {different}"
    elif _groups(state["optimizer"]) != _groups(own["optimizer"]):
        problem = "is of another optimizer"
    elif state["made_by"] != own["made_by"]:
        problem = "is of another run: other settings, or another seed, made it"
    else:
        return
    raise UserError(f"{problem}; resume with the config that the run was started with")


def _different(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> str:
    """Describe how the tensors of two states differ in names and shapes; empty if they do not."""
    here, there = ({k: list(v.shape) for k, v in state.items()} for state in (own, saved))
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if not names:
        return ""
    old, new = there.get(names[0], "absent"), here.get(names[0], "absent")
    return f"{len(names)} tensors differ, such as {names[0]!r}, {old} there and {new} here"


def _groups(state: Mapping[str, Any]) -> list[tuple[list[str], list[int]]]:
    """Return what tells the optimizers of two states apart."""
    return [(sorted(group), group["params"]) for group in state["param_groups"]]


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load momenta and the like; rates and other settings stay those of the config.

    Learning-rate tensors stay the same objects too, since a captured step reads their memory.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    own = optimizer.state_dict()
    try:
        optimizer.load_state_dict({**own, "state": state["state"]})
    except Exception as error:  # every optimizer has a way of its own to miss something
        optimizer.load_state_dict(own)
        raise UserError(
            f"is not a whole training state: its optimizer's cannot be loaded ({error!r:.80}); "
            "name another checkpoint, or train again"
        ) from error
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
