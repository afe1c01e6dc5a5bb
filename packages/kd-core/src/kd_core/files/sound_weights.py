"""Check that tensors of a file can replace a network's: dense, of the same kind, finite."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def unsound(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return in one line which tensors cannot replace a network's; "" if all can.

    Floats of any precision are accepted if their values are finite in the network's precision.
    Names that only one side has, and shapes, are not checked here.

    Args:
        state: Tensors of a file, on the CPU.
        own: The state of the network.
    """
    wrong = [
        f"{name} {problem}"
        for name, value in state.items()
        if name in own and (problem := _problem(name, value, own[name]))
    ]
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}" if wrong else ""


def not_finite(module: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of parameters, and of buffers, that hold NaN or inf; waits for the device.

    Buffers that are not in the module's state, such as a mask of -inf, do not count.
    """
    saved = module.state_dict(keep_vars=True).keys()
    weights = dict(module.named_parameters())
    buffers = {name: value for name, value in module.named_buffers() if name in saved}
    return _not_finite(weights), _not_finite(buffers)


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    floats = {k: value for k, value in tensors.items() if value.is_floating_point()}
    if not floats:
        return []
    finite = torch.stack([_all_finite(value.detach()) for value in floats.values()]).tolist()
    return [name for name, is_finite in zip(floats, finite, strict=True) if not is_finite]


def _all_finite(value: Tensor) -> Tensor:
    """Return whether all floats are finite; on a CPU ten times as fast as to look at each."""
    if not value.numel() or value.element_size() == 1:  # of eight bits: torch has no extremes
        return value.isfinite().all()
    least, most = value.aminmax()  # NaN if there is one
    return least.isfinite() & most.isfinite()


def _problem(name: str, value: Tensor, own: Tensor) -> str:
    """Return why a tensor cannot replace another; "" if it can."""
    if value.is_quantized:
        return "is quantised; save the weights before quantisation"
    if value.layout != torch.strided or value.is_nested:
        return f"is not dense but {str(value.layout).removeprefix('torch.')}; save it dense"
    if value.device.type == "meta":
        return "has a shape but no values (device 'meta')"
    if _kind(value) != _kind(own):
        return f"is {_dtype(value)} in the file, {_dtype(own)} in the network"
    if not value.is_floating_point() and not value.is_complex():
        counts = name.endswith("num_batches_tracked")
        return "is a counter, and negative" if counts and bool((value < 0).any()) else ""
    return _bad_values(name, value.to(own.dtype), own)


def _bad_values(name: str, value: Tensor, own: Tensor) -> str:
    bad = value.numel() - int(value.isfinite().sum())
    # A mask of -inf among the network's buffers is right.
    if bad and own.device.type != "meta" and bool(own.isfinite().all()):
        return f"is not finite: {bad} of its {value.numel()} values are NaN or inf"
    if name.endswith("running_var") and bool((value < 0).any()):
        return "is a variance, and has negative values"
    return ""


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "float"
    if tensor.is_complex():
        return "complex"
    return "bool" if tensor.dtype == torch.bool else "integer"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
