"""FeatureTap: record inputs and outputs of modules inside a network, by name."""

from collections.abc import Iterable, Mapping, Sequence
from threading import get_ident
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, jit, nn
from torch.utils.hooks import RemovableHandle

from kd_core.errors import UserError, nearest
from kd_core.functional import tensors, with_own_containers
from kd_core.networks.grids import Grids, first_input
from kd_core.networks.hidden_pass import is_hidden
from kd_core.networks.tap_paths import TapPath, parse

_TWO_THREADS = (
    "two threads run the network at once, which would mix their values; let one wait for the "
    "other, or give each a copy of the network (copy.deepcopy) and its own FeatureTap"
)


class OverwrittenTapError(UserError):
    """A later layer changed a recorded tensor in place; `paths` names the taps to copy."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        super().__init__(
            f"tap {', '.join(map(repr, paths))}: a later layer (an in-place ReLU?) overwrote the "
            f"recorded tensor; pass copy={paths!r} to FeatureTap, or tap that later layer"
        )


class _AllTapsFired(BaseException):  # not an error, and not one that a network may catch
    """Ends a forward pass once all taps have fired."""


class FeatureTap:
    """Record inputs and outputs of named modules during the forward passes inside a `with`.

    A tap is `path` (the module's output), `path:in` (its first input), `path[key]` (one entry of a
    dict or tuple), `path[*]` (the outputs of all its calls, as a tuple), `path[*][-1]` (that of one
    call; `path:in[*][-1]` likewise) or `output` (what the whole network returns). Hooks exist only
    between enter and exit; the dict that enter returns has the recorded values, by the text of
    the tap.

    A layout may follow all of these, as in `path:in:tokens` or `path[key]:nhwc`:

    * `:nhwc` turns a map [N, H, W, C] into [N, C, H, W]; `:nchw` says that it is one already;
      `:nhwc:tokens` gives the map's positions as tokens [N, H * W, C].
    * `:tokens` takes tokens [N, prefix + L, D] and leaves out those that are not of the image
      (class, distillation, registers). `:map` gives them as a map [N, D, h, w], `:cls` the class
      token [N, D]. Plain vision transformers say how many there are; for others write
      `:tokens(prefix=1,grid=7x7)`, or `stride=16` for the pixels of one token.
    * `:mean`, or `:nhwc:mean` and `:nchw:mean` of a map, is the mean [N, D] over the positions of
      the image.
    * `:vector` turns a map of one position, [N, D, 1, 1], into [N, D].

    In a term, `:tokens` and `:map` follow what its criterion takes.

    Args:
        network: The module whose submodules are named; never changed.
        paths: The taps.
        copy: Taps to copy when recorded, because a later layer works in place on the same memory.
        stop: End the pass inside the `with` once every tap has fired, which saves the rest. Only
            where no gradient is needed, and no value of the pass but its taps.

    Attributes:
        passes: How often the network runs inside the `with`, each time on another part of a batch.
            The values of a tap in all passes are joined when the `with` ends.

    Raises:
        UserError: If a name does not exist (here), or, when the `with` ends, if a tap did not fire
            or its tensor was overwritten; inside, if a module without `[*]` runs twice.
    """

    def __init__(
        self,
        network: nn.Module,
        paths: str | Iterable[str],
        *,
        copy: str | Iterable[str] = (),
        stop: bool = False,
    ) -> None:
        if hasattr(network, "_orig_mod") or getattr(network, "_compiled_call_impl", None):
            raise UserError(
                "the network is compiled already, so hooks in it would never fire; "
                "compile the whole training step, or tap the original module"
            )
        if isinstance(network, jit.ScriptModule):
            raise UserError(
                "the network is scripted (torch.jit), which has no taps; use the plain one"
            )
        self.network = network
        self.paths = _unique(paths)
        self.copy = _unique(copy)
        for path in self.copy:
            if path not in self.paths:
                raise UserError(f"copy={path!r} is none of the taps{nearest(path, self.paths)}")
        self.passes = 1
        self._taps = [parse(path, network) for path in self.paths]
        self._grids = Grids(network, [tap.layout for tap in self._taps])
        # Unknown: how often `[*]` fires, and what runs after the output.
        last = any(tap.every_call or (not tap.path and not tap.input) for tap in self._taps)
        self._stops = stop and bool(self.paths) and not last
        self._handles: list[RemovableHandle] = []
        self._thread = 0
        self._seen: dict[str, Any] = {}
        self._versions: dict[str, list[tuple[Tensor, int]]] = {}

    def __enter__(self) -> dict[str, Any]:
        if self._handles and self._thread != get_ident():
            raise UserError(_TWO_THREADS)
        if self._handles:
            raise RuntimeError("this FeatureTap is in use already")
        self._thread = get_ident()
        # Looked up again in every pass: a conversion (SyncBatchNorm) may have replaced a module.
        modules = [self.network.get_submodule(tap.path) for tap in self._taps]
        self._handles = self._grids.hooks()
        self._handles += [self._register(*pair) for pair in zip(self._taps, modules, strict=True)]
        return self._seen

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        seen, versions, self._seen, self._versions = self._seen, self._versions, {}, {}
        stopped = kind is _AllTapsFired and error is not None and error.args[0] is self
        if kind is None or stopped:
            self._check(seen, versions)
            for tap in self._taps:
                if self.passes > 1:
                    seen[tap.name] = _joined_calls(tap, seen[tap.name], self.passes)
                if tap.every_call:
                    seen[tap.name] = tap.select(seen[tap.name])
        return stopped

    @property
    def hooked(self) -> set[str]:
        """Paths of the modules whose output is read; with an `in` after them, whose input is."""
        return {tap.hooked for tap in self._taps}

    def of(self, network: nn.Module, *, stop: bool = False) -> "FeatureTap":
        """Return the same tap of another network; see `stop` above."""
        return FeatureTap(network, self.paths, copy=self.copy, stop=stop)

    def _register(self, tap: TapPath, tapped: nn.Module) -> RemovableHandle:
        # A deepcopy of the network made in the block keeps the hooks; there they must do nothing.
        def record_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if module is tapped:
                self._record(tap, output)

        def record_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module is tapped:
                self._record(tap, first_input(args, kwargs))

        if tap.input:
            return tapped.register_forward_pre_hook(record_input, with_kwargs=True)
        return tapped.register_forward_hook(record_output)

    def _record(self, tap: TapPath, value: Any) -> None:
        if is_hidden():
            return
        if get_ident() != self._thread:
            raise UserError(f"tap {tap.name!r}: {_TWO_THREADS}")
        several = tap.every_call or self.passes > 1
        if tap.name in self._seen and not several:
            every_call = f"{tap.name.partition('[')[0]}[*]"
            raise UserError(
                f"tap {tap.name!r}: the module ran twice in one forward pass; "
                f"{every_call!r} gives the outputs of all its calls as a tuple"
            )
        if not tap.every_call:
            value = tap.select(value)
        value = self._grids.lay_out(tap.layout, value)
        value = _clone(value) if tap.name in self.copy else with_own_containers(value)
        tracked = [(t, t._version) for t in tensors(value) if not t.is_inference()]
        self._versions.setdefault(tap.name, []).extend(tracked)
        self._seen[tap.name] = (*self._seen.get(tap.name, ()), value) if several else value
        if self._stops and len(self._seen) == len(self.paths):
            raise _AllTapsFired(self)

    def _check(self, seen: dict[str, Any], versions: dict[str, list[tuple[Tensor, int]]]) -> None:
        silent = [path for path in self.paths if path not in seen]
        if silent:
            raise UserError(
                f"tap {', '.join(map(repr, silent))}: the module did not run in this forward pass "
                "(a functional call in its place, or a branch not taken?); --list-taps shows "
                "which modules run"
            )
        changed = [
            path
            for path, tensors in versions.items()
            if any(tensor._version != version for tensor, version in tensors)
        ]
        if changed:
            raise OverwrittenTapError(changed)


def _unique(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def _clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {key: _clone(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_clone(item) for item in value)
    return value


def _joined_calls(tap: TapPath, values: Sequence[Any], passes: int) -> Any:
    """Return the value of a tap for a whole batch, from all calls in passes over its parts."""
    calls, rest = divmod(len(values), passes)
    if rest or (calls > 1 and not tap.every_call):
        raise UserError(
            f"tap {tap.name!r}: the module ran {len(values)} times in {passes} passes over parts "
            "of the batch, so its outputs cannot be assigned; tap another module, or run the "
            "batch as one"
        )
    joined = tuple(_joined(values[call::calls]) for call in range(calls))
    return joined if tap.every_call else joined[0]


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    if isinstance(parts[0], Mapping):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    if isinstance(parts[0], tuple | list):
        return tuple(_joined(items) for items in zip(*parts, strict=True))
    return parts[0]
