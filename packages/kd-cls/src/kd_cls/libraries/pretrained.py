"""What torchvision and timm say of their own pretrained weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torchvision
from kd_core.errors import UserError, nearest
from kd_core.experiment.models import is_pretrained
from kd_core.files.weight_facts import WeightFacts, facts_in
from torch import nn


def pretrained_facts(
    network: nn.Module, node: Mapping[str, Any], wanted: Sequence[str] = ()
) -> WeightFacts | None:
    """Return what a torchvision or timm network was pretrained with, or None.

    torchvision's names of classes are taken only where all that are `wanted` are among them: a
    folder of ImageNet has others (`n01440764`), in the same order.

    Raises:
        UserError: If timm's `pretrained_cfg` is not what it must be.
    """
    settings = getattr(network, "pretrained_cfg", None)
    if is_pretrained(node) and settings:
        found = facts_in(settings, f"pretrained_cfg of {type(network).__name__}")
        fits = len(found.classes or ()) == getattr(network, "num_classes", None)
        return found if fits else replace(found, classes=None)
    weights = torchvision_weights(node)
    if weights is None:
        return None
    shown = weights.transforms()
    names = weights.meta.get("categories") or []
    known = names if wanted and set(wanted) <= set(names) else None
    source = f"torchvision's {weights}"
    return WeightFacts(source=source, classes=known, mean=shown.mean, std=shown.std)


def torchvision_weights(node: Mapping[str, Any]) -> Any:
    """Return the entry of torchvision's weights enum that a network's node names, or None.

    Raises:
        UserError: If the network has no weights of this name.
    """
    path, name = str(node["type"]).rpartition(".")[::2]
    name = node.get("name", name)  # of torchvision.models.get_model
    known = path.startswith("torchvision.models") and name in torchvision.models.list_models()
    if not known or not is_pretrained(node):
        return None
    choices = torchvision.models.get_model_weights(name)
    chosen = str(node.get("weights") or "DEFAULT").rpartition(".")[2]
    if chosen not in choices.__members__:
        raise UserError(f"{name} has no weights {chosen!r}{nearest(chosen, choices.__members__)}")
    return choices[chosen]


def other_statistics(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> str:
    """Return in what way images are shown otherwise than to timm's own weights; "" if alike.

    For weights from a file that does not say how images were normalised in its training.
    """
    settings = getattr(network, "pretrained_cfg", None)
    if not isinstance(settings, Mapping):
        return ""
    usual = {key: list(settings.get(key) or ()) for key in ("mean", "std")}
    if not all(usual.values()) or _close([*mean, *std], [*usual["mean"], *usual["std"]]):
        return ""
    numbers = " and ".join(f"{name}={value}" for name, value in usual.items())
    return (
        "does not say how its images were normalised, so mean and std are the data's; timm's own "
        f"weights of this network have {numbers}: set these if the file is of timm"
    )


def _close(some: Sequence[float], others: Sequence[float]) -> bool:
    return len(some) == len(others) and all(
        abs(a - b) < 1e-3 for a, b in zip(some, others, strict=True)
    )
