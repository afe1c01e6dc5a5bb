"""Find the last layers of a network: one pass, and the way back from its output."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from kd_core.functional import tensors
from torch import Tensor, nn

_ACTIVATIONS = ("Relu", "Gelu", "Tanh", "Elu", "Silu", "Hardswish", "Hardtanh", "Mish", "Softplus")


class LastLayers(NamedTuple):
    """What the output of a network comes from.

    Args:
        output: What the network gave, or the entry of it that was selected.
        paths: Of the layers with parameters after which no other layer has any.
        loose: Names of parameters that are used outside a layer, after these layers.
        activated: Whether an activation follows these layers: they end in features.
    """

    output: Tensor
    paths: tuple[str, ...]
    loose: tuple[str, ...]
    activated: bool


def last_layers(network: nn.Module, images: Tensor, select: Callable[[Any], Tensor]) -> LastLayers:
    """Run images through a network in evaluation mode and follow its output back.

    Args:
        network: Any network; modes are restored, nothing else changes in evaluation.
        images: Prepared, float [N, C, H, W].
        select: Returns the tensor that counts, of whatever the network gives.
    """
    made: dict[Any, str] = {}  # what autograd keeps of a layer's output

    def watch(path: str, layer: nn.Module) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            for tensor in tensors(output):
                if tensor.grad_fn is not None:
                    made.setdefault(tensor.grad_fn, path)

        return layer.register_forward_hook(note)

    modes = [(module, module.training) for module in network.modules()]
    layers = [(path, m) for path, m in network.named_modules() if path and _is_layer(m)]
    handles = [watch(path, layer) for path, layer in layers]
    try:
        with torch.enable_grad():  # a gradient to the images: the way back through frozen layers
            output = select(network.eval()(images.detach().requires_grad_()))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return _way_back(network, output, made)


def _way_back(network: nn.Module, output: Tensor, made: dict[Any, str]) -> LastLayers:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    paths: dict[str, None] = {}
    loose: dict[str, None] = {}
    activated = False
    ahead, done = [output.grad_fn], set()
    while ahead:
        step = ahead.pop()
        if step is None or step in done:
            continue
        done.add(step)
        if step in made:
            paths[made[step]] = None
        elif hasattr(step, "variable"):
            if id(step.variable) in names:
                loose[names[id(step.variable)]] = None
        else:
            activated |= step.name().startswith(_ACTIVATIONS)
            ahead += [before for before, _ in step.next_functions]
    return LastLayers(output.detach(), tuple(paths), tuple(loose), activated)


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module has parameters, and no other modules but what makes these."""
    inner = [name for name, _ in module.named_children() if name != "parametrizations"]
    return not inner and any(True for _ in module.parameters())
