"""Whether a network gives logits, not the probabilities of a softmax or sigmoid at its end."""

from typing import Any

import torch
from kd_core.errors import UserError
from kd_core.networks.probe import first_pass
from kd_core.networks.task import Batch, Task
from kd_core.runtime import distributed
from torch import Tensor, nn

_LOOKED_AT = 8  # images
_EXACT = 2e-3  # of sums of probabilities, in half precision too
_BY_CHANCE = 8  # classes: so many logits are not all in (0, 1) by chance
_LAST = {nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax", nn.Sigmoid: "sigmoid"}


def check_logits_are_raw(task: Task, batch: Batch) -> None:
    """Look at a few outputs of a network; reads them from the device.

    After a softmax or sigmoid the loss would apply another one. A log-softmax only shifts logits,
    which matters to criteria that compare them one by one; so it is printed, and so is what looks
    like a sigmoid that is not a module.

    Args:
        task: A classifier; it is not changed.
        batch: Its first images are looked at.

    Raises:
        UserError: If the last of the network is a softmax, or a module for a sigmoid.
    """
    found: list[tuple[str, Any]] = []
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: found.append((name, output)))
        for module in task.network.modules()
        if (name := _LAST.get(type(module)))
    ]
    try:
        logits = first_pass(task, {"image": batch["image"][:_LOOKED_AT]})
    finally:
        for handle in handles:
            handle.remove()
    if not logits.numel():
        return
    last = [name for name, output in found if _same(output, logits)]
    ends_in = last[-1] if last else _looks_like(logits.detach().float())
    network = type(task.network).__name__
    if ends_in == "softmax" or last == ["sigmoid"]:
        raise UserError(
            f"{network} ends in a {ends_in}: it gives probabilities, and the losses would apply "
            "another one; take the network without it (torch.nn.Identity in its place)"
        )
    if ends_in:
        distributed.print_note(_NOTES[ends_in].format(network=network))


_NOTES = {
    "log_softmax": "{network} ends in a log_softmax, which losses with a softmax do not see; but "
    "criteria that compare logits one by one see other values: better take it out",
    "sigmoid": "{network} gives values in (0, 1) only: does it end in a sigmoid? Losses would "
    "apply another one; take it out",
}


def _same(output: Any, logits: Tensor) -> bool:
    is_like = isinstance(output, Tensor) and output.shape == logits.shape
    return is_like and torch.equal(output, logits)


def _looks_like(logits: Tensor) -> str:
    """Return what the values must have come from, or nothing."""
    classes = logits.shape[1]
    if classes > 1 and (logits >= 0).all() and ((logits.sum(1) - 1).abs() < _EXACT).all():
        return "softmax"
    if classes > 1 and (logits <= 0).all() and (logits.logsumexp(1).abs() < _EXACT).all():
        return "log_softmax"
    inside = ((logits > 0) & (logits < 1)).all()
    return "sigmoid" if classes >= _BY_CHANCE and inside else ""
