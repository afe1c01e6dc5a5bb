"""Build an optimizer with its learning rates on the device."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from kd_core.config.build import build
from kd_core.config.kinds import name_of, subclass_of
from kd_core.config.node import Node, located_type, parse
from kd_core.config.parameters import parameters_of
from kd_core.config.trying import try_out
from kd_core.errors import UserError, nearest
from kd_core.runtime.failures import first_line
from kd_core.training.parameter_groups import Grouping, make_groups, parse_grouping

OPTIMIZER = subclass_of("an optimizer", torch.optim.Optimizer)

_OWN = tuple(field.name for field in fields(Grouping))


def parse_optimizer(node: Mapping[str, Any], where: str = "optimizer") -> Node:
    """Check a config's node, move one weight by it, and return it for `build_optimizer`.

    Raises:
        UserError: If it names no optimizer whose step can be taken alone, an argument is unknown or
            out of its range, or a rule changes what the optimizer does not have.
    """
    own, _, _ = _parsed(node, where)
    try_out(own, _take_step)
    keys = {key: value for key, value in node.items() if key in _OWN}
    return own.changed(**keys)


def build_optimizer(
    node: Mapping[str, Any], model: nn.Module, where: str = "optimizer"
) -> torch.optim.Optimizer:
    """Build a config's optimizer over the parameters of a model that require a gradient.

    Where the optimizer has a fused form it is used, with the rates as device tensors: the schedule
    then writes to the device and the step reads nothing back, which a captured step needs.

    Args:
        node: A node such as `dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)`, with the keys of
            `Grouping` beside the optimizer's own. Parameters that these freeze are frozen.
        model: What is trained.
        where: Place of the node in the config.

    Raises:
        UserError: See `parse_optimizer`; or if a rule matches nothing, or nothing is trained.
    """
    parsed, grouping, accepted = _parsed(node, where)
    own = dict(parsed)
    given = own.get("lr", accepted["lr"].default) if "lr" in accepted else None
    rate = float(given) if isinstance(given, int | float) else None
    decay = accepted.get("weight_decay")
    decays = decay is not None and bool(own.get("weight_decay", decay.default))
    groups = make_groups(model, grouping, rate, where, decays=decays)
    if "fused" in accepted and rate is not None and not {"fused", "foreach"} & own.keys():
        device = groups[0]["params"][0].device
        own |= {"fused": True, "lr": torch.tensor(rate, device=device)}
        for group in groups:  # each its own, since the schedule writes into it
            group["lr"] = torch.tensor(group["lr"], device=device)
    return build(own, where, kind=OPTIMIZER, params=groups)


def groups_text(optimizer: torch.optim.Optimizer, model: nn.Module) -> str:
    """Return in one line how the parameters of a model are grouped; "" if there is one group."""
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    rates = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
    if len(optimizer.param_groups) == 1 and not frozen:
        return ""
    span = f", rates from {min(rates):.3g} to {max(rates):.3g}" if rates else ""
    count = len(list(model.parameters()))
    return (
        f"optimizer: {len(optimizer.param_groups)} parameter groups{span}; {frozen} of {count} "
        "parameters are frozen"
    )


def _take_step(node: Node) -> None:
    """Move one weight by an optimizer, which checks some of its arguments only then."""
    weight = nn.Parameter(torch.zeros(1, 1))
    weight.grad = torch.zeros_like(weight)
    one = nn.ParameterDict({"weight": weight})
    try:
        build_optimizer(node, one, node.where).step()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{node.where}: {name_of(node.function)} fails on a weight of one number: "
            f"{type(error).__name__} {first_line(error)}".rstrip()
        ) from error


def _parsed(
    node: Mapping[str, Any], where: str
) -> tuple[Node, Grouping, Mapping[str, inspect.Parameter]]:
    """Return the optimizer's own node, how parameters are grouped, and what the optimizer takes."""
    kind = located_type(node, where, OPTIMIZER)
    _refuse_closures(kind, f"{where}.type")
    keys = {key: node[key] for key in _OWN if key in node}
    written = {key: value for key, value in node.items() if key not in _OWN}
    _refuse_unknown(kind, written, where)
    own = parse(written, where, kind=OPTIMIZER, provided=("params",))
    grouping = parse_grouping(keys, where)
    accepted: Mapping[str, inspect.Parameter] = inspect.signature(kind).parameters
    for setting in sorted(grouping.settings - accepted.keys()):
        raise UserError(
            f"{where}: {name_of(kind)} has no {setting!r}, so it cannot differ between parameters"
        )
    return own, grouping, accepted


def _refuse_unknown(kind: Any, own: Mapping[str, Any], where: str) -> None:
    """Reject a key that neither the optimizer nor `Grouping` has; name the nearest of both."""
    parameters = parameters_of(kind)
    known = {*parameters.names, *_OWN, "type"}
    for key in own:
        if key not in known and not parameters.open:
            hint = nearest(key, known - {"params", "type"})
            raise UserError(f"{where}: {name_of(kind)} has no parameter {key!r}{hint}")


def _refuse_closures(kind: Any, where: str) -> None:
    """Reject an optimizer that calls the model itself, or that does not take tensors.

    A training step gives it gradients once, and those of whole tensors.
    """
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UserError(
            f"{where}: {name_of(kind)} evaluates the loss again in its step; take one that needs "
            "gradients alone, such as torch.optim.AdamW"
        )
    if issubclass(kind, torch.optim.SparseAdam):
        raise UserError(f"{where}: {name_of(kind)} takes sparse gradients alone; take another")
