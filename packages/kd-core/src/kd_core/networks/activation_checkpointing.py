"""Activation checkpointing: blocks that run again in the backward pass rather than keep values."""

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kd_core.errors import UserError, nearest
from kd_core.functional import tensors, with_own_containers
from kd_core.networks.hidden_pass import hidden_from_taps
from kd_core.networks.parameters import blocks_of
from kd_core.runtime.seed import rng_state, set_rng_state

KEY = "trainer.activation_checkpointing"

_LISTS = (nn.ModuleList, nn.ModuleDict)  # they hold modules, and are not called


class _Checkpointing:
    """What the classes of checkpointed blocks have in common."""


def checkpoint_activations(
    networks: Sequence[nn.Module], wanted: bool | Sequence[str], key: str = KEY
) -> int:
    """Let blocks of networks keep their inputs alone, and run again in the backward pass.

    Losses, gradients, buffers and later random numbers are those of the plain block, bit for bit: a
    block runs again with the buffers and the generators (torch's, NumPy's, Python's) that it began
    with, and what it changes then is dropped. Modules and names of parameters stay the same. Taps
    inside a block work, and do not see the second run.

    Args:
        networks: Student and peers, changed in place.
        wanted: True for the blocks that `blocks_of` finds, or patterns of module names, such as
            "layer*"; of nested modules that they match the outermost are taken.
        key: Where a config asks for it, for messages.

    Returns:
        The number of blocks.

    Raises:
        UserError: If there is no block, a pattern matches nothing, or a block cannot run again.
    """
    patterns = [] if isinstance(wanted, bool) else list(wanted)
    for pattern in patterns:
        names = [name for network in networks for name, _ in network.named_modules() if name]
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"{key}: no module is called {pattern!r}{nearest(pattern, names)}")
    count = 0
    for network in networks:
        names = _outermost(network, patterns) if patterns else blocks_of(network)
        if not names and not patterns:
            raise UserError(
                f"{key}: {type(network).__name__} has no blocks in an nn.Sequential or "
                "nn.ModuleList; name the modules that are to run again, such as ['layer*']"
            )
        for name in names:
            _convert(network.get_submodule(name), f"{key}: {{}} {name!r}")
        count += len(names)
    return count


def has_checkpointed(modules: Iterable[nn.Module]) -> bool:
    """Return whether one of these modules is a checkpointed block."""
    return any(isinstance(module, _Checkpointing) for module in modules)


def _outermost(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Return the modules that patterns match, without those inside others; lists do not count."""
    found: list[str] = []
    for name, module in network.named_modules():
        matched = any(
            fnmatchcase(name, pattern) or (_in_list(network, name, pattern)) for pattern in patterns
        )
        inside = name.startswith(tuple(f"{outer}." for outer in found))
        if name and matched and not inside and not isinstance(module, _LISTS):
            found.append(name)
    return found


def _in_list(network: nn.Module, name: str, pattern: str) -> bool:
    """Return whether a pattern matches the list that a module is in."""
    parent = name.rpartition(".")[0]
    is_listed = bool(parent) and isinstance(network.get_submodule(parent), _LISTS)
    return is_listed and fnmatchcase(parent, pattern)


def _convert(block: nn.Module, place: str) -> None:
    if isinstance(block, _Checkpointing):
        return  # it is shared by two networks, or is in one twice
    if isinstance(block, torch.jit.ScriptModule) or "forward" in vars(block):
        kind = "scripted" if isinstance(block, torch.jit.ScriptModule) else "patched"
        raise UserError(
            f"{place.format('the forward of')} is {kind}, so it cannot be run again; name other "
            "modules"
        )
    kind_of_block: Any = type(block)
    block.__class__ = _checkpointing(kind_of_block)
    vars(block)["_checkpointed_as"] = place


@functools.cache
def _checkpointing(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a class like another, of the same name, whose forward is checkpointed."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return kind.forward(self, *args, **kwargs)
        return _run(self, kind.forward, args, kwargs)

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (_Checkpointing, kind), {**names, "forward": forward})


def _run(block: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    before = _Before(block, (args, kwargs))
    # A block may put others into a list that it was given (HRNet): each pass has containers of its
    # own, but the first one those of the caller, who may look into them.
    given, first = with_own_containers((args, kwargs)), [(args, kwargs)]

    def run() -> Any:  # without arguments: `_Before` looks after inputs and random states
        args, kwargs = first.pop() if first else with_own_containers(given)
        return forward(block, *args, **kwargs)

    output = checkpoint(
        run,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), before),
    )
    before.keep_what_moved()
    return output


class _Before:
    """What a block began with; a context in which it begins with that again.

    Args:
        block: The block, before it runs.
        inputs: Of its pass.
    """

    def __init__(self, block: nn.Module, inputs: Any) -> None:
        self.place = vars(block)["_checkpointed_as"]
        self.inputs = [(t, t._version) for t in tensors(inputs) if not t.is_inference()]
        self.random_states = _random_states()
        self.buffers = [
            (module, name, buffer, buffer.clone(), buffer._version)
            for module in block.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self.moved: list[tuple[nn.Module, str, Tensor]] = []

    def keep_what_moved(self) -> None:
        """Find, after the pass, which buffers have to be restored; forget the others."""
        self._require_inputs()
        self.moved = [
            (module, name, copy)
            for module, name, buffer, copy, version in self.buffers
            # BatchNorm moves its statistics without a new version.
            if buffer.is_floating_point()
            or module._buffers.get(name) is not buffer
            or buffer._version != version
        ]
        self.buffers.clear()

    def __enter__(self) -> None:
        self._require_inputs()
        self._after = ExitStack()
        self._after.enter_context(hidden_from_taps())
        self._after.callback(_set_random_states, _random_states())
        _set_random_states(self.random_states)
        for module, name, value in self.moved:
            self._after.callback(module._buffers.__setitem__, name, module._buffers[name])
            module._buffers[name] = value.clone()

    def __exit__(self, *error: object) -> None:
        self._after.close()

    def _require_inputs(self) -> None:
        if any(tensor._version != version for tensor, version in self.inputs):
            raise UserError(
                f"{self.place.format('the input of')} is changed in place, by it or by a later "
                "layer (an in-place ReLU?), so it cannot be run again; name other modules, such "
                "as those around it"
            )


def _random_states() -> tuple[Any, ...]:
    """Return the state of all generators: torch's, NumPy's, Python's."""
    return rng_state(), np.random.get_state(), random.getstate()


def _set_random_states(states: tuple[Any, ...]) -> None:
    set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
