"""BatchNorms of networks, for criteria that read their parameters."""

from itertools import takewhile

import torch
from torch import Tensor, nn

from kd_core.networks.sharding import whole


def find_batchnorm(network: nn.Module, tap: str) -> tuple[Tensor, Tensor]:
    """Return weight and bias, [C] each, of the BatchNorm that computed a tapped tensor.

    That is the tapped module itself, or the last one of a tapped Sequential. Of a module's input
    (`layer1.2.relu:in`) it is the one before it in its Sequential, or the last one of its block,
    where a residual block adds to it.

    Args:
        network: The network.
        tap: Path of what is tapped.

    Returns:
        Weight and bias, detached; both empty if there is no such BatchNorm, or it has none.
    """
    for module in reversed(_makers(network, tap)):
        state = module.state_dict()
        if {"weight", "bias", "running_var"} <= state.keys():  # frozen variants too
            return whole(state["weight"]), whole(state["bias"])
    return torch.empty(0), torch.empty(0)


def _makers(network: nn.Module, tap: str) -> list[nn.Module]:
    """Return the modules that may have computed a tapped tensor, the likeliest last."""
    modules = dict(network.named_modules(remove_duplicate=False))
    path, _, asked_input = tap.partition("[")[0].partition(":")
    if not asked_input:
        module = modules.get(path, nn.Identity())
        return [*module][-1:] if isinstance(module, nn.Sequential) else [module]
    parent, _, name = path.rpartition(".")
    block = modules.get(parent, nn.Identity())
    if isinstance(block, nn.Sequential):
        before = takewhile(lambda child: child[0] != name, block.named_children())
        return [module for _, module in before][-1:]
    # In other blocks the order says nothing: residual ones use one ReLU at several places.
    return list(block.children())
