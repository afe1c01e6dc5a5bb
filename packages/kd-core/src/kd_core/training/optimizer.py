"""Build an optimizer whose learning rate lives on the device."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from kd_core.config.build import build, locate
from kd_core.config.kinds import subclass_of
from kd_core.errors import UserError

OPTIMIZER = subclass_of("an optimizer", torch.optim.Optimizer)


def build_optimizer(
    node: Mapping[str, Any], parameters: Iterable[nn.Parameter], where: str = "optimizer"
) -> torch.optim.Optimizer:
    """Build a config's optimizer over the parameters that require a gradient.

    Where the optimizer has a fused form it is used, with the rate as a device tensor: the schedule
    then writes to the device and the step reads nothing back, which a captured step needs.

    Args:
        node: A node such as `dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)`.
        parameters: All parameters; frozen ones are left out.
        where: Place of the node in the config.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise UserError(f"{where}: nothing to train; every parameter is frozen")
    node = dict(node)
    kind = node.get("type")
    kind = locate(kind) if isinstance(kind, str) else kind
    accepted = inspect.signature(kind).parameters if callable(kind) else {}
    if {"fused", "lr"} <= accepted.keys() and not {"fused", "foreach"} & node.keys():
        rate = node.get("lr", accepted["lr"].default)
        node |= {"fused": True, "lr": torch.tensor(float(rate), device=trained[0].device)}
    return build(node, where, kind=OPTIMIZER, params=trained)
