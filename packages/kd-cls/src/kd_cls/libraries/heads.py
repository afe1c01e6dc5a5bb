"""Classifiers at the end of any network: which layers they are, and new ones in their place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from kd_core.errors import UserError, nearest
from kd_core.runtime.failures import explain, first_line
from torch import Tensor, nn
from torchvision.models import SqueezeNet

from kd_cls.libraries.last_layers import LastLayers, last_layers
from kd_cls.libraries.sizes import size_advice
from kd_cls.models.with_head import WithHead

ON_OUTPUT = "output"
"""What `head` says, as a tap does, where a linear layer is added to what the network gives."""

Layer = nn.Linear | nn.Conv2d


class Trial(NamedTuple):
    """What is needed to look for heads by running a network.

    Args:
        images: Prepared, float [N, C, H, W].
        select: Returns the tensor that counts, of whatever the network gives.
    """

    images: Tensor
    select: Callable[[Any], Tensor]


class Heads(NamedTuple):
    """A network and the paths of its heads' layers.

    Args:
        network: The network; where it had no head, a `WithHead` around it.
        paths: Of the layers that give the logits.
    """

    network: nn.Module
    paths: tuple[str, ...]

    def layers(self) -> list[Layer]:
        """Return the layers."""
        return [require_layer(self.network, path) for path in self.paths]

    def renewed(self, num_classes: int) -> "Heads":
        """Return the heads newly made for a number of classes."""
        if resets_itself(self.network) and set(self.paths) == set(own_heads(self.network)):
            return Heads(_reset(self.network, num_classes), own_heads(self.network))
        for path in self.paths:
            _replace(self.network, path, num_classes)
        _set_count(self.network, num_classes)
        return self


def find_heads(
    network: nn.Module, num_classes: int, named: str | Sequence[str] | None, trial: Trial
) -> Heads:
    """Return the heads of a network; a linear layer is added to one that ends in features.

    Networks that say their heads themselves (`get_classifier` of timm's) are believed. Others are
    run once, and their output is followed back to the last layers.

    Args:
        network: The network.
        num_classes: Outputs of a layer that is added.
        named: Paths of the layers, where the user says them; `output` adds one.
        trial: How the network is run.

    Raises:
        UserError: If the heads cannot be found.
    """
    if named is not None and named != ON_OUTPUT:
        paths = (named,) if isinstance(named, str) else tuple(named)
        heads = Heads(network, paths)
        heads.layers()  # each must be one
        return heads
    if named is None and resets_itself(network):
        if not own_heads(network):  # as timm builds it for `num_classes=0`
            _reset(network, num_classes)
        if paths := own_heads(network):
            return Heads(network, paths)
    found = followed_back(network, trial)
    if named is None and (paths := heads_among(network, found)):
        return Heads(network, paths)
    return Heads(_extended(network, found.output, num_classes), ("head",))


def renew_as_in(network: nn.Module, state: Mapping[str, Tensor], num_classes: int) -> None:
    """Renew the layers whose tensors in a file differ as those of other classes do.

    A layer of `num_classes` outputs in the file, and of another number or without bias in the
    network, is a head; all other differences stay, for the message of what loads the file.
    """
    for path, layer in list(network.named_modules()):
        if not isinstance(layer, Layer):
            continue
        weight, bias = (state.get(f"{path}.{name}") for name in ("weight", "bias"))
        if weight is None or len(weight) != num_classes:
            continue
        same = weight.shape[1:] == layer.weight.shape[1:]
        if same and (len(layer.weight) != num_classes or (layer.bias is None and bias is not None)):
            _replace(network, path, num_classes)


def own_heads(network: Any) -> tuple[str, ...]:
    """Return the paths of the layers inside what `get_classifier` of a network returns."""
    heads = network.get_classifier()
    inside = {id(layer) for module in _modules(heads) for layer in module.modules()}
    return tuple(
        path
        for path, layer in network.named_modules()
        if id(layer) in inside and isinstance(layer, Layer)
    )


def _modules(found: Any) -> list[nn.Module]:
    several = found if isinstance(found, tuple | list) else (found,)
    return [module for module in several if isinstance(module, nn.Module)]


def resets_itself(network: nn.Module) -> bool:
    """Return whether a network says its heads itself, as those of timm do."""
    return all(hasattr(network, name) for name in ("get_classifier", "reset_classifier"))


def _reset(network: Any, num_classes: int) -> nn.Module:
    try:
        network.reset_classifier(num_classes)
    except Exception as error:
        if known := explain(error):
            raise known from error
        raise UserError(
            f"{type(network).__name__}.reset_classifier({num_classes}) failed: "
            f"{type(error).__name__}: {first_line(error)}; name the layer to replace with `head`"
        ) from error
    built: nn.Module = network
    return built


def followed_back(network: nn.Module, trial: Trial) -> LastLayers:
    """Return the last layers of a network, found by running it."""
    try:
        return last_layers(network, *trial)
    except Exception as error:
        if known := explain(error):
            raise known from error
        raise UserError(
            f"{type(network).__name__} fails with images {list(trial.images.shape)}, so its head "
            f"is not found ({type(error).__name__}: {first_line(error)}); "
            f"{size_advice(network) or 'set `size` to what it wants'}, or name the layer to "
            "replace with `head`"
        ) from error


def heads_among(network: nn.Module, found: LastLayers) -> tuple[str, ...]:
    """Return which of the last layers are heads; none where the network ends in features.

    Raises:
        UserError: If they are in doubt.
    """
    layers = [network.get_submodule(path) for path in found.paths]
    count = found.output.shape[-1]
    if not any(isinstance(layer, Layer) for layer in layers):
        return ()
    if all(isinstance(layer, nn.Linear) for layer in layers) and found.activated:
        return ()
    clear = not found.activated or isinstance(network, SqueezeNet)
    whole = all(isinstance(layer, Layer) and _width(layer) == count for layer in layers)
    if clear and whole and not found.loose:
        return found.paths
    last = ", ".join(f"{p} ({type(m).__name__})" for p, m in zip(found.paths, layers, strict=True))
    raise UserError(
        f"{type(network).__name__}: which layers give the logits is in doubt; last are "
        f"{', '.join([last, *found.loose])}. Name those to replace, such as "
        f"head={found.paths[0]!r}, or add a linear layer to the output with head={ON_OUTPUT!r}"
    )


def _extended(network: nn.Module, features: Tensor, num_classes: int) -> WithHead:
    flat = features.flatten(1)
    if features.dim() < 2 or flat.shape[1] != features.shape[1]:
        raise UserError(
            f"{type(network).__name__} has no head and gives {tuple(features.shape)}; a linear "
            "layer can be added to features [N, D] alone: let the network pool them, name its "
            "output of that shape (output='pooler_output'), or wrap it"
        )
    return WithHead(network, flat.shape[1], num_classes)


def _width(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def require_layer(network: nn.Module, path: str) -> Layer:
    """Return the layer of a path; raises a `UserError` if it is not one that gives logits."""
    modules = dict(network.named_modules())
    if path not in modules:
        raise UserError(
            f"head: {type(network).__name__} has no module {path!r}{nearest(path, modules)}"
        )
    layer = modules[path]
    if not isinstance(layer, Layer):
        inside = [
            p for p, m in modules.items() if p.startswith(f"{path}.") and isinstance(m, Layer)
        ]
        raise UserError(
            f"head: {path!r} is a {type(layer).__name__}, wanted a linear layer or a convolution"
            f"{nearest(path, inside)}"
        )
    return layer


def _replace(network: nn.Module, path: str, num_classes: int) -> None:
    """Replace a layer, under all its names, by a new one on the same device."""
    old = require_layer(network, path)
    new: Layer
    with torch.device(old.weight.device):
        if isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, num_classes)
        else:
            form: Any = (old.kernel_size, old.stride, old.padding)
            new = nn.Conv2d(old.in_channels, num_classes, *form)
    names = [name for name, m in network.named_modules(remove_duplicate=False) if m is old]
    for name in names:
        owner, _, last = name.rpartition(".")
        setattr(network.get_submodule(owner), last, new.to(old.weight.dtype).train(old.training))


def _set_count(network: Any, num_classes: int) -> None:
    """Let what a network keeps of its number of classes agree with its new heads."""
    for owner in (network, getattr(network, "config", None)):  # the second of Hugging Face's
        for name in ("num_classes", "num_labels"):
            if type(getattr(owner, name, None)) is int:
                setattr(owner, name, num_classes)
