"""Fold BatchNorms into the convolutions before them: a frozen network with fewer operations."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from kd_core.functional import tensors
from kd_core.networks.copying import copied
from kd_core.networks.taps import OverwrittenTapError

TOLERANCE = 1e-3  # of the largest value; float32 differs by some 1e-6, a wrong fold by 1


def folded_copy(
    model: nn.Module, run: Callable[[nn.Module], object], kept: Collection[str]
) -> tuple[nn.Module, int]:
    """Return a copy of a model with its BatchNorms folded, if its outputs are the model's.

    One pass shows which BatchNorm follows which convolution, so the network need not be traced: a
    pair is a convolution and a BatchNorm that ran once each, the BatchNorm on the tensor that the
    convolution returned; or a convolution that holds its BatchNorm as `norm`, as Detectron2's.
    Frozen BatchNorms (torchvision's, Detectron2's) count as BatchNorms.
    Names of modules stay; an Identity replaces the BatchNorm. A pass does not
    show whether another module reads the convolution's output too, so the outputs are compared.
    ReLUs then work in place, if that changes nothing. The copy shares all tensors with the model
    except those of folded convolutions. Layers whose weights are computed (pruning, weight or
    spectral normalisation, any parametrization) or that have hooks stay as they are.

    Args:
        model: In eval mode.
        run: Runs a model on a sample and returns all outputs that are used.
        kept: Paths of convolutions whose own output is used, and `PATH:in` of BatchNorms whose
            input is.

    Returns:
        The copy and the number of BatchNorms folded; the model itself and 0 if there is none, if
        another module reads a convolution's output, or if the model cannot be copied or changed.
    """
    found, wanted = _pairs(model, run)
    pairs = [(c, n) for c, n in found if f"{n}:in" not in kept]
    pairs = [(c, n) for c, n in pairs if c not in kept or _inside(c, n)]
    if not pairs or (folded := sharing_copy(model)) is None:
        return model, 0
    try:
        _fold_all(folded, pairs)
        if not _agrees_in_place(wanted, folded, run):
            return model, 0
    except Exception:  # a network may do anything with its layers; unfolded it is right too
        return model, 0
    return folded, len(pairs)


def _fold_all(folded: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    for convolution, norm in pairs:
        layer = cast(nn.Conv2d, folded.get_submodule(convolution))
        _fold(layer, folded.get_submodule(norm))
        owner, _, name = norm.rpartition(".")
        setattr(folded.get_submodule(owner), name, nn.Identity())


def sharing_copy(model: nn.Module) -> nn.Module | None:
    """Return a copy that shares the model's tensors, or None if the model cannot be copied."""
    shared: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    try:
        return copied(model, shared)
    except Exception:  # computed weights, locks, files, and a network's own __deepcopy__
        return None


def is_plain(layer: nn.Module) -> bool:
    """Return whether a layer uses its own weights as they are: nothing computes or watches them."""
    stored = layer._parameters.keys() | layer._buffers.keys()
    return "weight" in stored and not (layer._forward_pre_hooks or layer._forward_hooks)


def _is_norm(module: object) -> bool:
    """Return whether a module is a BatchNorm, or one that is frozen: all its values are buffers."""
    if type(module) is nn.BatchNorm2d:
        return True
    if not isinstance(module, nn.Module) or module._parameters or module._modules:
        return False
    names = {"weight", "bias", "running_mean", "running_var"}
    return module._buffers.keys() == names and isinstance(getattr(module, "eps", None), float)


def _holds_norm(module: nn.Module) -> bool:
    """Return whether a convolution applies a BatchNorm of its own to its output."""
    special = isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d
    return special and _is_norm(getattr(module, "norm", None))


def _inside(convolution: str, norm: str) -> bool:
    return norm == f"{convolution}.norm"


def _pairs(
    model: nn.Module, run: Callable[[nn.Module], object]
) -> tuple[list[tuple[str, str]], object]:
    """Return paths of convolutions and of the BatchNorms that follow them, and the outputs."""
    made: dict[int, tuple[str, int]] = {}  # the convolution that made a tensor, and its version
    alive: list[Tensor] = []  # keeps the tensors: an id is unique only while its tensor exists
    calls: dict[str, int] = {}
    found: list[tuple[str, str]] = []

    def note(name: str) -> Callable[..., None]:
        def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            if _holds_norm(module):
                found.append((name, f"{name}.norm"))
            elif isinstance(module, nn.Conv2d):
                made[id(output)] = name, output._version
                alive.append(output)
            elif id(args[0]) in made:
                convolution, version = made[id(args[0])]
                if args[0]._version == version:  # else another operation changed it in place
                    found.append((convolution, name))

        return after

    handles = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if is_plain(module)
        and (type(module) is nn.Conv2d or _is_norm(module) or _holds_norm(module))
    ]
    try:
        outputs = run(model)
    finally:
        for handle in handles:
            handle.remove()
    once = [pair for pair in found if all(calls.get(name) == 1 for name in pair)]
    return [(c, n) for c, n in once if model.get_submodule(n).running_var is not None], outputs


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double() * scale
    if convolution.bias is not None:
        bias = bias + convolution.bias.double() * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    weight = convolution.weight
    folded = (weight.double() * scale[:, None, None, None]).to(weight.dtype)
    # The convolution keeps the memory layout of its weight: oneDNN and cuDNN depend on it.
    convolution.weight = nn.Parameter(folded, requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)


def _agrees_in_place(wanted: object, model: nn.Module, run: Callable[[nn.Module], object]) -> bool:
    """Return whether the outputs are those that are wanted.

    ReLUs then overwrite their input, which halves the memory traffic, unless that changes them.
    """
    changed = [m for m in model.modules() if type(m) is nn.ReLU and not m.inplace]
    for relu in changed:
        relu.inplace = True
    if _agree(wanted, model, run):
        return True
    for relu in changed:
        relu.inplace = False
    return bool(changed) and _agree(wanted, model, run)


def _agree(wanted: object, model: nn.Module, run: Callable[[nn.Module], object]) -> bool:
    try:
        found = run(model)
    except OverwrittenTapError:
        return False
    pairs = zip(tensors(wanted), tensors(found), strict=True)
    return all(
        bool((a - b).abs().amax() <= TOLERANCE * a.abs().amax()) for a, b in pairs if a.numel()
    )
