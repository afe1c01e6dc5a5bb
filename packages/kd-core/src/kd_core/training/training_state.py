"""Training state: what a checkpoint holds, and how a trainer resumes from it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_core.config.kinds import name_of
from kd_core.errors import UserError
from kd_core.files.checkpoint import is_plain
from kd_core.runtime import distributed
from kd_core.runtime.seed import rng_state
from kd_core.training.hooks import Hook, TrainerLike, check_methods
from kd_core.training.resuming import processes
from kd_core.training.state_checks import (
    check_optimizer,
    check_position,
    check_structure,
    check_values,
)

_POSITION = ("epoch", "step_in_epoch", "seconds", "epoch_began", "history", "best")


def collect(trainer: TrainerLike) -> dict[str, Any]:
    """Return everything that the rest of a run depends on, in plain types and tensors.

    All processes call it; what the first gets is whole.
    """
    return {**_own(trainer), "others": processes.gather(trainer)}


def _own(trainer: TrainerLike) -> dict[str, Any]:
    """Return the part of this process."""
    return {
        "distiller": trainer.distiller.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "average": trainer.average.network.state_dict() if trainer.average else None,
        "meter": trainer.meter.state_dict(),
        "loss_scale": trainer.loss_scale.state_dict() if trainer.loss_scale else None,
        "rng": rng_state(),
        "others": [],
        "hooks": _states_of(trainer.hooks),
        "steps_per_epoch": trainer.steps_per_epoch,
        "made_by": trainer.made_by,
        **{name: getattr(trainer, name) for name in _POSITION},
    }


def restore(trainer: TrainerLike, state: Mapping[str, Any]) -> None:
    """Bring a trainer where `collect` found one that was built from the same config.

    Raises:
        UserError: If the state is damaged, or of other data, another student, other terms, another
            optimizer or other hooks; nothing is changed then, but what a hook changed of itself.
    """
    _check(trainer, state)
    state = processes.of_this_process(state)
    _load_hooks(trainer.hooks, state["hooks"])  # first these two, since they may refuse
    _load_optimizer(trainer.optimizer, state["optimizer"])
    trainer.distiller.load_state_dict(state["distiller"])
    if trainer.average:
        trainer.average.network.load_state_dict(state["average"])
    trainer.meter.load_state_dict(state["meter"], trainer.distiller.steps.device)
    if trainer.loss_scale:
        trainer.loss_scale.load_state_dict(state["loss_scale"])
    processes.draw_on(state)
    for name in _POSITION:
        setattr(trainer, name, state[name])


def check_hooks(hooks: Sequence[Hook]) -> None:
    """Reject hooks that cannot be called or whose state cannot be kept, before any work.

    Raises:
        UserError: If a method has another name or other arguments than those that are called; if
            one writes a state and does not read it, or it is not plain.
    """
    for kind in {type(hook): None for hook in hooks}:
        check_methods(kind)
    for name, hook in _with_state(hooks).items():
        if type(hook).load_state_dict is Hook.load_state_dict:
            raise UserError(
                f"hook {name} has a state_dict and no load_state_dict, so a resumed run would "
                "lose what it remembers; write both"
            )
    _states_of(hooks)


def _with_state(hooks: Sequence[Hook]) -> dict[str, Hook]:
    """Return the hooks with a state by class name and, from the second on, number."""
    found, seen = {}, Counter[str]()
    for hook in hooks:
        if hook.for_trainer and type(hook).state_dict is not Hook.state_dict:
            name = name_of(type(hook))
            seen[name] += 1
            found[name if seen[name] == 1 else f"{name} {seen[name]}"] = hook
    return found


def _states_of(hooks: Sequence[Hook]) -> dict[str, dict[str, Any]]:
    states = {name: hook.state_dict() for name, hook in _with_state(hooks).items()}
    for name, state in states.items():
        if not is_plain(state):
            raise UserError(
                f"hook {name}: its state_dict gives {state!r:.80}; wanted a dict by name of "
                "tensors, numbers, texts, None, and lists and dicts of these"
            )
    return states


def _load_hooks(hooks: Sequence[Hook], states: Mapping[str, Any]) -> None:
    for name, hook in _with_state(hooks).items():
        try:
            hook.load_state_dict(states[name])
        except Exception as error:  # written by anybody, and read from a file
            raise UserError(
                f"holds a state that hook {name} cannot load ({type(error).__name__}: "
                f"{error!s:.80}); name another checkpoint, or train again"
            ) from error


def _check(trainer: TrainerLike, state: Mapping[str, Any]) -> None:
    if "steps_per_epoch" not in state:
        raise UserError("is not a training state; a run is resumed from the last.pth that it wrote")
    own = _own(trainer)
    check_structure(state, own)
    _check_config(trainer, state, own)
    check_values(state, own)
    check_position(state, trainer.epochs)
    check_optimizer(state["optimizer"], trainer.optimizer)


def _check_config(trainer: TrainerLike, state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Reject a state of another config."""
    if state["steps_per_epoch"] != trainer.steps_per_epoch:
        problem = (
            f"has {state['steps_per_epoch']} steps an epoch, this run {trainer.steps_per_epoch}: "
            f"the data, batch_size or accumulate differ{_processes(state)}"
        )
    elif different := _different(own["distiller"], state["distiller"]):
        problem = f"is of another student or other terms: {different}"
    elif (state["average"] is None) != (own["average"] is None):
        problem = "is of a run with trainer.ema, or this one is, and the other is not"
    elif (state["loss_scale"] is None) != (own["loss_scale"] is None):
        problem = "is of a run with precision=fp16, or this one is, and the other is not"
    elif different := _different(own["average"] or {}, state["average"] or {}):
        problem = f"has an average of another student: {different}"
    elif _groups(state["optimizer"]) != _groups(own["optimizer"]):
        problem = "is of another optimizer"
    elif state["hooks"].keys() != own["hooks"].keys():
        there, here = (", ".join(each["hooks"]) or "none" for each in (state, own))
        problem = f"has the states of other hooks, {there} there and {here} here"
    elif state["made_by"] != own["made_by"]:
        problem = "is of another run: other settings, or another seed, made it"
    else:
        return
    raise UserError(f"{problem}; resume with the config that the run was started with")


def _processes(state: Mapping[str, Any]) -> str:
    """Return what to say of the numbers of processes, if they differ."""
    there, here = len(state["others"]) + 1, distributed.world_size()
    return "" if there == here else f", or the number of processes ({there} there and {here} here)"


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
