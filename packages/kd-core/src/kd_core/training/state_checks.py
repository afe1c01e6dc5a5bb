"""Check that a training state is complete and consistent: names, types, sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.files.sound_weights import unsound
from kd_core.training.resuming.forms import FORMS, is_count, is_finite, is_number

State = Mapping[str, Any]

_REMEDY = "name another checkpoint, or train again"


def check_structure(state: State, own: State) -> None:
    """Reject a state whose entries are not those of a trainer, or have other types.

    Args:
        state: The contents of a file.
        own: The result of `training_state.collect` in this run.

    Raises:
        UserError: Names the first entry that is wrong.
    """
    if missing := [name for name in own if name not in state]:
        _refuse(f"has no {missing[0]!r}")
    if unknown := [name for name in state if name not in own]:
        _refuse(f"has an unknown entry {unknown[0]!r}")
    for name, is_right in FORMS.items():
        if not is_right(state[name]):
            _refuse(f"has a wrong {name!r}: {_short(state[name])}")


def check_position(state: State, epochs: int) -> None:
    """Reject a position outside the run, or a history or counters of another position.

    Raises:
        UserError: Names what is wrong.
    """
    epoch, step, length = (state[k] for k in ("epoch", "step_in_epoch", "steps_per_epoch"))
    if epoch > epochs:
        raise UserError(
            f"is of a longer run: {epoch} epochs are done there, {epochs} are wanted here; "
            "resume with trainer.epochs as the run was started with"
        )
    # After the last step of an epoch, before it is finished, the step is the length.
    if step > length or (epoch == epochs and step):
        _refuse(f"is {epoch} epochs and {step} steps into a run of {epochs} epochs of {length}")
    done = int(state["distiller"].get("steps", epoch * length + step))
    counts = {part["meter"]["n"].item() for part in (state, *state["others"])}
    if done != epoch * length + step or counts != {step}:
        _refuse(f"has counted {done} steps in {epoch} epochs of {length} and {step} steps")
    if not 0 <= state["epoch_began"] <= state["seconds"]:
        _refuse(f"began an epoch {state['epoch_began']} s into {state['seconds']} s")
    _check_history(state["history"], epoch, length)
    _check_best(state["best"], state["history"])


def check_values(state: State, own: State) -> None:
    """Reject tensors that are not finite, or of another type than the trainer's.

    Their names and shapes are those of the trainer's.

    Raises:
        UserError: Names the first of them.
    """
    for part in ("distiller", "average"):
        here, there = own[part] or {}, state[part] or {}
        if wrong := unsound(there, here):
            _refuse(wrong)
        other = [name for name in here if there[name].dtype != here[name].dtype]
        if other:
            _refuse(f"{other[0]} is {there[other[0]].dtype}, {here[other[0]].dtype} here")
        for process in state["others"]:
            _check_other(process[part], there)
    if any(process["meter"]["names"] != state["meter"]["names"] for process in state["others"]):
        _refuse("has sums of other losses in another process")


def _check_other(tensors: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> None:
    """Reject what another process had, if the first had nothing like it."""
    for name, tensor in tensors.items():
        like = first.get(name)
        if like is None or (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            _refuse(f"has another process's {name!r} of another form")
    if wrong := unsound(tensors, {name: first[name] for name in tensors}):
        _refuse(wrong)


def check_optimizer(state: State, optimizer: torch.optim.Optimizer) -> None:
    """Reject momenta and the like that are not finite, or not of the parameters' shapes.

    Raises:
        UserError: Names the first of them.
    """
    weights: list[tuple[nn.Parameter, Mapping[str, Any]]] = [
        (weight, group) for group in optimizer.param_groups for weight in group["params"]
    ]
    known = type(optimizer).__module__.startswith("torch.optim")  # others may keep anything
    for number, kept in state["state"].items():
        if not is_count(number) or number >= len(weights) or not isinstance(kept, Mapping):
            _refuse(f"has a state of the optimizer for parameter {number!r} of {len(weights)}")
        for name, value in kept.items():
            if not is_finite(value):
                _refuse(f"has an optimizer's {name!r} that is not finite: {_short(value)}")
            if known and not _fits(name, value, *weights[number]):
                _refuse(f"has an optimizer's {name!r} that does not fit its parameter")


def _fits(name: str, value: Any, weight: Tensor, group: Mapping[str, Any]) -> bool:
    """Return whether torch's optimizers keep such a value for a parameter of this shape."""
    if not isinstance(value, Tensor):
        return value is None and name == "momentum_buffer" and not group.get("momentum")
    if name in ("row_var", "col_var"):  # of Adafactor
        return [min(n, 1) for n in value.shape] == [1] * weight.dim() and all(
            own in (1, size) for own, size in zip(value.shape, weight.shape, strict=True)
        )
    scalar = name in ("step", "eta", "mu", "mu_product")
    if scalar:
        return value.is_floating_point() and not value.dim()
    return value.dtype == weight.dtype and value.shape == weight.shape


def _check_history(history: Sequence[State], epoch: int, length: int) -> None:
    numbers = [(record.get("epoch"), record.get("step")) for record in history]
    if numbers != [(number, number * length) for number in range(1, epoch + 1)]:
        _refuse(f"has the records of other epochs than the {epoch} that are done")
    for record in history:
        for name in ("lr", "seconds", "images_per_second"):
            if not is_number(record.get(name)):
                _refuse(f"has a record of epoch {record['epoch']} without its {name}")


def _check_best(best: State, history: Sequence[State]) -> None:
    if not best:
        return
    number: Any = best.get("epoch")
    if type(number) is not int or not 1 <= number <= len(history):
        _refuse(f"has its best epoch at {number!r} of {len(history)}")
    record = history[number - 1]
    # By their texts: NaN is not equal to itself.
    if odd := [name for name, value in best.items() if repr(record.get(name)) != repr(value)]:
        _refuse(f"has a best {odd[0]!r} that is not the one of epoch {number}")


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:60]


def _refuse(problem: str) -> None:
    raise UserError(f"is not a whole training state: it {problem}; {_REMEDY}")
