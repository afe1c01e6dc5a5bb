"""FeatureTap: read what modules inside a network take in or give out, by their names."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import get_ident
from types import TracebackType
from typing import Any

from torch import Tensor, jit, nn
from torch.utils.hooks import RemovableHandle

from kd_core.errors import UserError, nearest

_GRAMMAR = re.compile(
    r"(?P<path>[^\[\]:@]+)(?P<input>:in)?(?P<every>\[\*\])?(?:\[(?P<key>[^\[\]*]+)\])?"
)


_TWO_THREADS = (
    "two threads run the network at once, and what they give would be mixed; let one wait for the "
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


class _AllSeen(BaseException):  # no error, and none that a network may catch
    """Ends a forward pass that has nothing more to show."""


@dataclass(frozen=True)
class _Tap:
    """One parsed tap: where to hook, and what to keep of what comes by."""

    name: str
    path: str  # "" is the network itself
    input: bool
    every_call: bool
    key: str | None  # in what the module gives or, of every call, which one

    def select(self, value: Any) -> Any:
        if self.key is None:
            return value
        index = int(self.key) if re.fullmatch(r"-?\d+", self.key) else None
        if isinstance(value, Mapping):
            key = self.key if self.key in value else index
            if key in value:
                return value[key]
            raise UserError(f"tap {self.name!r}: no such key{nearest(self.key, map(str, value))}")
        if not isinstance(value, tuple | list):
            raise UserError(f"tap {self.name!r}: a {type(value).__name__} has no entries; no [key]")
        if index is None or not -len(value) <= index < len(value):
            raise UserError(f"tap {self.name!r}: no such entry in a tuple of {len(value)}")
        return value[index]


class FeatureTap:
    """Record inputs and outputs of named modules during the forward passes inside a `with`.

    A tap is `path` (the module's output), `path:in` (its first input), `path[key]` (one entry of a
    dict or tuple), `path[*]` (the outputs of all its calls, as a tuple), `path[*][-1]` (that of one
    call; `path:in[*][-1]` likewise) or `output` (what the whole network returns). Hooks exist only
    between enter and exit; the dict that enter gives keeps the recorded values, each under its
    tap's own text.

    Args:
        network: The module whose submodules are named; never changed.
        paths: The taps.
        copy: Taps to copy when recorded, because a later layer works in place on the same memory.
        stop: End the pass inside the `with` once every tap has fired: what comes after is computed
            for nothing. Only where no gradient is wanted, and nothing of the pass but its taps.

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
            raise UserError("the network is scripted (torch.jit), which has no taps; use the plain")
        self.network = network
        self.paths = _unique(paths)
        self.copy = _unique(copy)
        for path in self.copy:
            if path not in self.paths:
                raise UserError(f"copy={path!r} is none of the taps{nearest(path, self.paths)}")
        self._taps = [_parse(path, network) for path in self.paths]
        # How often `[*]` fires, and what comes after the output, is not known.
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
        # Looked up anew in every pass: a conversion (SyncBatchNorm) may have replaced a module.
        modules = [self.network.get_submodule(tap.path) for tap in self._taps]
        self._handles = [self._register(*pair) for pair in zip(self._taps, modules, strict=True)]
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
        if kind is None or kind is _AllSeen:
            self._check(seen, versions)
            for tap in self._taps:
                if tap.every_call:
                    seen[tap.name] = tap.select(seen[tap.name])
        return kind is _AllSeen

    def of(self, network: nn.Module, *, stop: bool = False) -> "FeatureTap":
        """Return the same tap of another network; see `stop` above."""
        return FeatureTap(network, self.paths, copy=self.copy, stop=stop)

    def _register(self, tap: _Tap, tapped: nn.Module) -> RemovableHandle:
        # A deepcopy of the network made meanwhile keeps the hooks; there they must do nothing.
        def record_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if module is tapped:
                self._record(tap, output)

        def record_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module is tapped:
                self._record(tap, next(iter((*args, *kwargs.values())), None))

        if tap.input:
            return tapped.register_forward_pre_hook(record_input, with_kwargs=True)
        return tapped.register_forward_hook(record_output)

    def _record(self, tap: _Tap, value: Any) -> None:
        if get_ident() != self._thread:
            raise UserError(f"tap {tap.name!r}: {_TWO_THREADS}")
        if tap.name in self._seen and not tap.every_call:
            every_call = f"{tap.name.partition('[')[0]}[*]"
            raise UserError(
                f"tap {tap.name!r}: the module ran twice in one forward pass; "
                f"{every_call!r} gives the outputs of all its calls as a tuple"
            )
        if not tap.every_call:
            value = tap.select(value)
        if tap.name in self.copy:
            value = _clone(value)
        self._versions.setdefault(tap.name, []).extend((t, t._version) for t in _tracked(value))
        self._seen[tap.name] = (*self._seen.get(tap.name, ()), value) if tap.every_call else value
        if self._stops and len(self._seen) == len(self.paths):
            raise _AllSeen

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


def _parse(name: str, network: nn.Module) -> _Tap:
    match = _GRAMMAR.fullmatch(name)
    if match is None:
        raise UserError(f"tap {name!r}: write path, path:in, path[key], path[*] or output")
    path, is_input = match["path"], bool(match["input"])
    every_call, key = bool(match["every"]), match["key"]
    if path == "output":
        return _Tap(name, "", is_input, every_call, key)
    modules = [module for module, _ in network.named_modules(remove_duplicate=False) if module]
    if path not in modules:
        raise UserError(
            f"tap {name!r}: {type(network).__name__} has no module {path!r}"
            f"{nearest(path, [*modules, 'output'])}"
        )
    return _Tap(name, path, is_input, every_call, key)


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


def _tracked(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a nested value that count their in-place changes."""
    if isinstance(value, Tensor):
        if not value.is_inference():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tracked(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tracked(item)
