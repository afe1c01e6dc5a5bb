"""Where the classifiers of a network are, whatever their names."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from kd_core.errors import UserError
from kd_core.networks.probe import untouched
from torch import Tensor, nn

from kd_reid.neck import CLASSIFIER, neck_of
from kd_reid.outputs import Pair, all_outputs, pair_in


def named_heads(network: nn.Module) -> tuple[str, ...]:
    """Return the paths of the classifiers that have torchreid's name; a neck is one of them."""
    if neck_of(network) is not None:
        return (CLASSIFIER,)
    return tuple(
        name
        for name, module in network.named_modules()
        if name.startswith(CLASSIFIER) and isinstance(module, nn.Linear)
    )


class Heads(NamedTuple):
    """Where the parts of a network are that belong to the identities of its training.

    Args:
        paths: Of the layers that give the logits.
        new: Of these, and of other parts behind the features, such as a BatchNorm: all that weights
            of a backbone lack.
        gives_pair: Whether the network gives logits and features in training, as far as is known.
    """

    paths: tuple[str, ...]
    new: tuple[str, ...]
    gives_pair: bool = True


def find_heads(network: nn.Module, images: Tensor) -> Heads:
    """Return where the classifiers are: by torchreid's name, or by what gives the logits.

    Args:
        network: If it is not of torchreid, it is run once; nothing in it changes.
        images: Prepared, float [N, C, H, W].

    Returns:
        Of each tensor of logits the innermost layer that gives it, or nothing if none is found.
    """
    named = named_heads(network)
    if named and (is_of_torchreid(network) or neck_of(network) is not None):
        return Heads(named, named)
    places: dict[int, str] = {}
    kept: list[Tensor] = []  # an id is of one tensor as long as this lives

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and name:
            kept.append(output)
            places.setdefault(id(output), name)  # the innermost ends first

    handles = [
        module.register_forward_hook(lambda m, args, output, name=name: note(name, output))
        for name, module in network.named_modules()
    ]
    try:
        with untouched(network), all_outputs(network), torch.enable_grad():
            pair = pair_in(network(images))
            behind = () if pair is None else _of_logits_alone(network, pair)
    except UserError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return Heads(named, named, gives_pair=False)  # a first pass says later what is wrong
    finally:
        for handle in handles:
            handle.remove()
    found = [places.get(id(logits), "") for logits in pair.logits] if pair else []
    paths = tuple(found) if found and all(found) else named
    return Heads(paths, tuple(dict.fromkeys((*paths, *behind))), pair is not None)


def _of_logits_alone(network: nn.Module, pair: Pair) -> tuple[str, ...]:
    """Return the layers with parameters that logits depend on, and features do not."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    used = [_depends(side, [parameter for _, parameter in named]) for side in pair]
    return tuple(
        dict.fromkeys(
            name.rpartition(".")[0]
            for (name, _), by_logits, by_features in zip(named, *used, strict=True)
            if by_logits and not by_features and "." in name
        )
    )


def _depends(outputs: tuple[Tensor, ...], parameters: list[nn.Parameter]) -> list[bool]:
    """Return on which parameters outputs depend."""
    total = torch.stack([output.sum() for output in outputs]).sum()
    if not total.requires_grad or not parameters:
        return [False] * len(parameters)
    found = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    return [gradient is not None for gradient in found]


def are_left_out(network: nn.Module, heads: Sequence[str]) -> bool:
    """Return whether there is nothing any more in the places of a network's classifiers."""
    return bool(heads) and all(isinstance(network.get_submodule(h), nn.Identity) for h in heads)


def is_of_torchreid(network: nn.Module) -> bool:
    """Return whether torchreid has made a network's class."""
    return type(network).__module__.partition(".")[0] == "torchreid"


def require_heads(network: nn.Module, heads: Sequence[str], wanted_by: str) -> None:
    """Reject a network whose classifier is not known.

    Raises:
        UserError: If there is none.
    """
    if not heads:
        raise UserError(
            f"{wanted_by}: which layer of {type(network).__name__} gives the logits is not known; "
            "let a layer give them as its output, or leave it out"
        )


class FixedBase:
    """Freezes all of a network but its new parts, and undoes just that.

    Args:
        new: See `Heads`.
    """

    def __init__(self, new: Sequence[str]) -> None:
        self.new = tuple(new)
        self._frozen: list[str] = []  # not what was frozen before

    def freeze(self, network: nn.Module) -> None:
        """Freeze parameters and set layers to evaluation mode, those of the network itself too."""
        named = [
            (name, p) for name, p in network.named_parameters() if not is_inside(name, self.new)
        ]
        self._frozen += [name for name, p in named if p.requires_grad]
        for _, parameter in named:
            parameter.requires_grad_(False)
        for name, module in network.named_modules():
            if not is_inside(name, self.new) and not self._around(name):
                module.training = False

    def release(self, network: nn.Module) -> None:
        """Let all be trained again that `freeze` has frozen."""
        parameters = dict(network.named_parameters())
        for name in self._frozen:
            parameters[name].requires_grad_(True)
        self._frozen.clear()

    def _around(self, name: str) -> bool:
        """Return whether a new part is inside: its flag may decide what the network returns."""
        return not name or any(head.startswith(f"{name}.") for head in self.new)


def is_inside(name: str, parts: Sequence[str]) -> bool:
    """Return whether a module or parameter is one of some parts, or inside of one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def watched(network: nn.Module, heads: Sequence[str]) -> bool:
    """Return whether hooks, such as those of taps, wait for what classifiers get or give."""
    inside = [module for head in heads for module in network.get_submodule(head).modules()]
    return any(module._forward_hooks or module._forward_pre_hooks for module in inside)


def batch_of(images: int, channels: int, size: tuple[int, int]) -> Tensor:
    """Return images of noise, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(images, channels, *size, generator=generator)
