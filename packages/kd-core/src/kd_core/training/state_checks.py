"""Check that a training state is complete and consistent: names, types, sizes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.files.checkpoint import is_plain
from kd_core.files.sound_weights import unsound
from kd_core.training.loss_scale import is_state

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
    for name, is_right in _TYPES.items():
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
    if done != epoch * length + step or state["meter"]["n"].item() != step:
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
        if not _is_count(number) or number >= len(weights) or not isinstance(kept, Mapping):
            _refuse(f"has a state of the optimizer for parameter {number!r} of {len(weights)}")
        for name, value in kept.items():
            if not _is_finite(value):
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


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, not a bool or tensor."""
    return type(value) in (int, float) and math.isfinite(value)


def _is_finite(value: Any) -> bool:
    """Return whether a value of an optimizer is finite; True if it is not a number."""
    if not isinstance(value, Tensor):
        return not isinstance(value, float) or math.isfinite(value)
    return _has_values(value) and bool(value.isfinite().all())


def _has_values(value: Any) -> bool:
    """Return whether a value is a tensor whose values can be read."""
    if not isinstance(value, Tensor) or value.is_quantized or value.is_complex():
        return False
    return value.layout == torch.strided and value.device.type != "meta"


def _are_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


def _is_optimizer(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.keys() != {"state", "param_groups"}:
        return False
    groups = value["param_groups"]
    return (
        isinstance(value["state"], Mapping)
        and isinstance(groups, list)
        and all(isinstance(group, Mapping) for group in groups)
        and all(isinstance(group.get("params"), list) for group in groups)
        and all(type(number) is int for group in groups for number in group["params"])
    )


def _is_meter(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.keys() != {"names", "sums", "bad", "n"}:
        return False
    names, tensors = value["names"], [value[k] for k in ("sums", "bad", "n")]
    return (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and all(_has_values(t) and t.is_floating_point() for t in tensors)
        and len({t.dtype for t in tensors}) == 1
        and [list(t.shape) for t in tensors] == [[len(names)], [len(names)], []]
        and all(_is_finite(t) for t in (tensors[0], tensors[2]))
        and not bool((tensors[1] < math.inf).any() or tensors[1].isnan().any())
    )


def _is_generator(value: Any) -> bool:
    """Return whether torch accepts the states of its generators."""
    if not isinstance(value, Mapping) or "cpu" not in value or set(value) - {"cpu", "cuda"}:
        return False
    for device, state in value.items():
        if not _has_values(state) or state.dtype != torch.uint8:
            return False
        if device == "cpu" or torch.cuda.is_available():
            try:
                torch.Generator(device).set_state(state.cpu())
            except (RuntimeError, TypeError):
                return False
    return True


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_record, value))


def _is_record(value: Any) -> bool:
    """Return whether a value is a mapping from text to plain values."""
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(item, str | int | float | None)
        for key, item in value.items()
    )


_TYPES: dict[str, Callable[[Any], bool]] = {
    "steps_per_epoch": _is_count,
    "made_by": lambda value: value is None or isinstance(value, str),
    "epoch": _is_count,
    "step_in_epoch": _is_count,
    "seconds": is_number,
    "epoch_began": is_number,
    "history": _are_records,
    "best": _is_record,
    "distiller": _are_tensors,
    "average": lambda value: value is None or _are_tensors(value),
    "optimizer": _is_optimizer,
    "meter": _is_meter,
    "loss_scale": lambda value: value is None or is_state(value),
    "rng": _is_generator,
    "hooks": lambda value: is_plain(value) and all(is_plain(state) for state in value.values()),
}
