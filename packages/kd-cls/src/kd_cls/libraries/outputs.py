"""Logits among what networks return: tuples, dicts and dataclasses, auxiliary classifiers."""

from collections.abc import Mapping
from typing import Any

from kd_core.errors import UserError
from kd_core.networks.tap_paths import entries, entry
from torch import Tensor, nn
from torchvision.models import GoogLeNet, Inception3

_LIKELY = ("logits", "out", "pooler_output")
_ADVICE = "a classifier needs logits [N, C]"


def logits_in(returned: Any, key: str | int | None, network: nn.Module) -> Tensor:
    """Return the logits [N, C] among what a network returned; see `tensor_in`."""
    logits = tensor_in(returned, key, network)
    if logits.dim() != 2:
        raise UserError(
            f"{type(network).__name__} returned {tuple(logits.shape)}; {_ADVICE} (pool or flatten, "
            "or wrap the network)"
        )
    return logits


def tensor_in(returned: Any, key: str | int | None, network: nn.Module) -> Tensor:
    """Return the tensor that counts among what a network returned.

    Args:
        returned: A tensor, or a tuple, dict or dataclass.
        key: Name or number of the entry; None where the network returns one tensor.
        network: The network.

    Raises:
        UserError: If there is no such entry, or it is not known which counts.
    """
    if key is not None:
        returned = entry(returned, str(key), f"output={key!r}")
    elif isinstance(returned, tuple) and _teaches_each_head(network):
        returned = returned[0]  # the class token's, as in timm's own training
    if isinstance(returned, Tensor):
        return returned
    name, found = type(network).__name__, entries(returned)
    if key is None and found:
        shown = ", ".join(f"{k} {_shown(v)}" for k, v in found.items())
        first = next((k for k in _LIKELY if k in found), next(iter(found)))
        raise UserError(
            f"{name} returned a {type(returned).__name__} ({shown}); {_ADVICE}: say which they "
            f"are, such as output={first!r}"
        )
    raise UserError(f"{name} returned {_shown(returned)}; {_ADVICE} (wrap the network)")


def known_key(network: nn.Module) -> str | None:
    """Return where a known library's classifiers have their logits, if not alone."""
    kinds = {kind.__name__ for kind in type(network).__mro__}
    classifies = "ForImageClassification" in type(network).__name__
    config = getattr(network, "config", None)
    of_hugging_face = "PreTrainedModel" in kinds and getattr(config, "return_dict", True)
    return "logits" if of_hugging_face and classifies else None


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


def _teaches_each_head(network: Any) -> bool:
    """Return whether a distilled network of timm gives the logits of each head in training."""
    owners = (network, getattr(network, "head", None))
    return any(getattr(owner, "distilled_training", False) is True for owner in owners)


def _shown(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
