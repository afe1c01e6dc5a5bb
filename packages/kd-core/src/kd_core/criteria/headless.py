"""A network without its classifier, which ends in features."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from torch import nn

from kd_core.config.kinds import MODULE
from kd_core.errors import UserError, nearest


def without_head(network: Annotated[nn.Module, MODULE], paths: Sequence[str]) -> nn.Module:
    """Return a network with nothing in the place of its last layers; other names stay.

    Args:
        network: Changed in place.
        paths: Of the layers that give logits.

    Raises:
        UserError: If there is no such layer.
    """
    return with_layers(network, {path: nn.Identity() for path in paths})


def with_layers(network: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Return a network with other layers at some paths, and at all further names of these.

    Raises:
        UserError: If there is no such layer.
    """
    for path, layer in layers.items():
        modules = dict(network.named_modules(remove_duplicate=False))
        if not path or path not in modules:
            name = type(network).__name__
            raise UserError(f"{name} has no layer {path!r}{nearest(path, modules)}")
        old = modules[path]
        for name in [name for name, module in modules.items() if module is old]:
            owner, _, last = name.rpartition(".")
            setattr(network.get_submodule(owner), last, layer.train(old.training))
    return network
