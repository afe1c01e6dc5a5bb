"""BatchNorms in a frozen part of a network, whose statistics still follow the batches."""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_core.runtime import distributed


def drifting_norms(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the BatchNorms in training mode, by name, whose own part of the network is frozen.

    A BatchNorm without parameters belongs to the smallest module around it that has some.
    """
    modules = dict(network.named_modules())
    for name, module in modules.items():
        keeps = isinstance(module, _BatchNorm) and module.running_mean is not None
        if not keeps or not module.training or module.momentum == 0:
            continue
        part = name
        while not any(True for _ in modules[part].parameters()) and part:
            part = part.rpartition(".")[0]
        owned = list(modules[part].parameters())
        if owned and not any(parameter.requires_grad for parameter in owned):
            yield name, module


def note_drift(network: nn.Module, what: str) -> None:
    """Print, in one line, which BatchNorms of frozen parts still follow the batches.

    Args:
        network: In training mode.
        what: Its name.
    """
    names = [name or "(the whole)" for name, _ in drifting_norms(network)]
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        distributed.print_note(
            f"{what}: BatchNorm {names[0]}{others} in a frozen part: the weights stay, but the "
            "running statistics still follow the batches; hold_frozen_norms=True of a classifier "
            "keeps them, or eval() of these modules after train()"
        )
