"""Run a sample batch through a model to infer the shapes at its taps; the model is unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from kd_core.errors import UserError
from kd_core.networks import sharding
from kd_core.networks.taps import FeatureTap, OverwrittenTapError
from kd_core.networks.task import Batch, Task, network_of
from kd_core.runtime.failures import explain, first_line
from kd_core.runtime.seed import rng_state, set_rng_state


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode under no_grad; restore modes and generators afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    state = rng_state()
    if any(training for _, training in modes):
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()  # torch 2.6 reuses what was cast without gradient
        set_rng_state(state)
        for module, mode in modes:
            if module.training != mode:  # to set one is slow
                module.training = mode


@contextmanager
def explained(model: nn.Module, batch: Batch) -> Iterator[None]:
    """Turn an error of a network into a UserError that names network, input and error."""
    try:
        yield
    except Exception as error:
        known = explain(error)  # an error of the machine, or explained already
        if known is not None:
            raise
        network = network_of(model)
        kinds = {str(p.dtype) for p in network.parameters() if p.dtype != torch.float32}
        weights = f"; its weights are {', '.join(sorted(kinds))}, wanted torch.float32" * bool(
            kinds
        )
        raise UserError(
            f"{type(network).__name__} failed in a first pass, fed {_fed(model, batch)}: "
            f"{type(error).__name__}: {first_line(error)}{weights}; {_remedy(model, batch)}"
        ) from error


def first_pass(model: nn.Module, batch: Batch) -> Any:
    """Return the prediction of a model for a batch; modes and generators are as before."""
    with untouched(model), explained(model, batch):
        return model(batch)


def materialise(network: nn.Module, images: Tensor) -> None:
    """Give the lazy layers of a plain network their shapes, by one pass; others stay as they are.

    Args:
        network: Such as one with `nn.LazyLinear`.
        images: What it is called with.

    Raises:
        UserError: If the pass fails.
    """
    if not any(map(is_lazy, (*network.parameters(), *network.buffers()))):
        return
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()(images)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{type(network).__name__} has lazy layers, which get their shape by a pass, and it "
            f"failed on {list(images.shape)}: {first_line(error)}; set `size` of its node, or name "
            "the shapes in the network"
        ) from error
    for module, mode in modes:
        module.training = mode


def _remedy(model: nn.Module, batch: Batch) -> str:
    if sharding.is_sharded(model):
        return (
            "where the whole network passes, blocks share weights, or are used in parts: leave it "
            f"out of {sharding.KEY}"
        )
    if "image" not in batch:
        return "change its config, or take another"
    if advice := getattr(model, "size_advice", ""):
        return f"if the size is wrong, {advice}"
    return (
        "if it wants images of another size, set `size` of its node; if it wants grey ones, `mean` "
        "and `std` of one number; else take another network"
    )


def _fed(model: nn.Module, batch: Batch) -> str:
    if "image" not in batch:  # a detector, whose own message says more
        return f"a batch of {', '.join(batch)}"
    images = batch["image"]
    prepare: Any = getattr(model, "prepare", None)  # of an `ImageTask`
    prepared, how = (prepare(images), " (normalised)") if prepare else (images, "")
    return f"{prepared.dtype} {list(prepared.shape)}{how}"


def training_pass(model: nn.Module, batch: Batch) -> None:
    """Run a batch through a model in training mode, to find errors that occur only there.

    Modes, buffers (statistics of normalisation) and generators are restored afterwards.

    Raises:
        UserError: If the network fails.
    """
    kept: list[tuple[Tensor, Tensor]] = [(b, b.clone()) for b in model.buffers()]
    with untouched(model), torch.enable_grad():
        model.train()
        try:
            with explained(model, batch):  # the batch need not have labels
                model.run_for_taps(batch) if isinstance(model, Task) else model(batch)
        finally:
            with torch.no_grad():
                for buffer, before in kept:
                    buffer.copy_(before)


def tap_values(
    model: nn.Module, tap: FeatureTap, batch: Batch
) -> tuple[FeatureTap, dict[str, Any]]:
    """Return the tapped values for a batch, and a tap that copies values which are overwritten.

    In-place dropout stays on in a model in training mode: only then does it overwrite values.
    """
    dropouts = [
        m for m in model.modules() if isinstance(m, _DropoutNd) and m.inplace and m.training
    ]
    with untouched(model):
        for dropout in dropouts:
            dropout.train()
        try:
            with explained(model, batch), tap as seen:
                model(batch)
        except OverwrittenTapError as error:
            tap = FeatureTap(tap.network, tap.paths, copy=(*tap.copy, *error.paths))
            with tap as seen:
                model(batch)
    return tap, seen


def calibrate_batchnorm(model: nn.Module, batch: Any) -> None:
    """Set the statistics of an untrained model's normalisation layers from one batch.

    Without them the maps of a deep random network grow until a loss against them overflows.

    Args:
        model: Its layers with `running_mean` and `running_var`, frozen ones too, are changed.
        batch: What the model is called with.

    Raises:
        UserError: If the model fails.
    """

    def measure(layer: Any, args: tuple[Tensor, ...]) -> None:
        dims = [0, *range(2, args[0].ndim)]
        layer.running_mean.copy_(args[0].mean(dims))
        layer.running_var.copy_(args[0].var(dims, correction=0))

    layers = [m for m in model.modules() if getattr(m, "running_var", None) is not None]
    handles = [layer.register_forward_pre_hook(measure) for layer in layers]
    try:
        with untouched(model), explained(model, batch):
            model(batch)
    finally:
        for handle in handles:
            handle.remove()


def shapes(value: Any) -> Any:
    """Replace every tensor of a nested value by its shape without the batch dimension."""
    if isinstance(value, Tensor):
        return tuple(value.shape[1:])
    if isinstance(value, dict):
        return {key: shapes(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(shapes(item) for item in value)
    return None
