"""Which of a network's outputs counts: among tuples, dicts and dataclasses."""

from typing import Any

from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.networks.tap_paths import entries, entry

_LIKELY = ("logits", "out", "pooler_output")
LOGITS_ADVICE = "a classifier needs logits [N, C]"


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
            f"{name} returned a {type(returned).__name__} ({shown}); {LOGITS_ADVICE}: say which "
            f"they are, such as output={first!r}"
        )
    raise UserError(f"{name} returned {_shown(returned)}; {LOGITS_ADVICE} (wrap the network)")


def known_key(network: nn.Module) -> str | None:
    """Return where a known library's classifiers have their logits, if not alone."""
    kinds = {kind.__name__ for kind in type(network).__mro__}
    classifies = "ForImageClassification" in type(network).__name__
    config = getattr(network, "config", None)
    of_hugging_face = "PreTrainedModel" in kinds and getattr(config, "return_dict", True)
    return "logits" if of_hugging_face and classifies else None


def _teaches_each_head(network: Any) -> bool:
    """Return whether a distilled network of timm gives the logits of each head in training."""
    owners = (network, getattr(network, "head", None))
    return any(getattr(owner, "distilled_training", False) is True for owner in owners)


def _shown(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
