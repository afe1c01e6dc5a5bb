"""The form of a training state's entries, whatever file they come from."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kd_core.files.checkpoint import is_plain
from kd_core.training.loss_scale import is_state


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number from 0, not a bool."""
    return type(value) is int and value >= 0


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, not a bool or tensor."""
    return type(value) in (int, float) and math.isfinite(value)


def is_finite(value: Any) -> bool:
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
        and all(is_finite(t) for t in (tensors[0], tensors[2]))
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


def _are_others(value: Any) -> bool:
    """Return whether a value has the form of what other processes had; see `processes`."""
    return isinstance(value, list) and all(
        isinstance(other, Mapping)
        and other.keys() == {"rng", "meter", "distiller", "average"}
        and _is_generator(other["rng"])
        and _is_meter(other["meter"])
        and all(_are_tensors(other[part]) for part in ("distiller", "average"))
        for other in value
    )


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_record, value))


def _is_record(value: Any) -> bool:
    """Return whether a value is a mapping from text to plain values."""
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(item, str | int | float | None)
        for key, item in value.items()
    )


FORMS: dict[str, Callable[[Any], bool]] = {
    "steps_per_epoch": is_count,
    "made_by": lambda value: value is None or isinstance(value, str),
    "epoch": is_count,
    "step_in_epoch": is_count,
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
    "others": _are_others,
    "hooks": lambda value: is_plain(value) and all(is_plain(state) for state in value.values()),
}
"""Whether a value can be an entry of a training state, by the entry's name."""
