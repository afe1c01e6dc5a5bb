"""Logits among what networks return, and auxiliary classifiers."""

from collections.abc import Mapping
from typing import Any

from kd_core.errors import UserError
from kd_core.networks.outputs import LOGITS_ADVICE, tensor_in
from torch import Tensor, nn
from torchvision.models import GoogLeNet, Inception3


def logits_in(returned: Any, key: str | int | None, network: nn.Module) -> Tensor:
    """Return the logits [N, C] among what a network returned; see `tensor_in`."""
    logits = tensor_in(returned, key, network)
    if logits.dim() != 2:
        raise UserError(
            f"{type(network).__name__} returned {tuple(logits.shape)}; {LOGITS_ADVICE} (pool or "
            "flatten, or wrap the network)"
        )
    return logits


def without_auxiliary(network: nn.Module, state: Mapping[str, Any] | None = None) -> bool:
    """Switch the auxiliary classifiers of torchvision's GoogLeNet or Inception off; return if so.

    Their losses would need weights, which torchvision's own training does not have either.

    Args:
        network: Changed in place.
        state: Tensors that will be loaded; if those of auxiliary classifiers are among them,
            nothing is changed yet.
    """
    names = {GoogLeNet: ("aux1", "aux2"), Inception3: ("AuxLogits",)}
    parts = next((names[kind] for kind in names if isinstance(network, kind)), ())
    built = [part for part in parts if getattr(network, part) is not None]
    if not built or any(name.startswith(tuple(parts)) for name in state or ()):
        return False
    network.aux_logits = False  # type: ignore[assignment]
    for part in built:
        setattr(network, part, None)
    return True
