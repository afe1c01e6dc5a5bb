"""Find host reads, which wait for the device, and shapes that depend on data."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kd_core.functional import tensors

_SHAPE = "its result's shape depends on the data; use a mask, torch.where or masked_fill"
_CHECK = "it reads its own error code back"
_REFUSED = {
    "_local_scalar_dense": "`.item()`, `float(x)`, `int(x)` or `if x:` reads a value back",
    "equal": "torch.equal answers on the host; compare and reduce with tensors",
    "allclose": "torch.allclose answers on the host; compare and reduce with tensors",
    "nonzero": _SHAPE,
    "masked_select": _SHAPE,
    "_unique": _SHAPE,
    "_unique2": _SHAPE,
    "unique_dim": _SHAPE,
    "unique_consecutive": _SHAPE,
    "bincount": _SHAPE,
    "repeat_interleave": "its result's shape depends on the data; give a number, or output_size",
    "multinomial": "it checks the probabilities on the host; divide them by exponential noise "
    "and take the arg-max",
    "_linalg_check_errors": f"{_CHECK}; use the `_ex` variant of the function",
    "_linalg_svd": _CHECK,
    "_linalg_eigh": _CHECK,
}
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
_COPIES = (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__)


class HostReadError(AssertionError):
    """A computation on the device read values back to the host."""


class NoHostReads(TorchDispatchMode):
    """Raise at every host read and data-dependent shape inside the `with`, backward included.

    A training step can be captured as a CUDA graph only if it has none. It works on the CPU, so
    the rule holds where no test machine has a GPU.

    Raises:
        HostReadError: Names the operator and what to write instead.
    """

    def __enter__(self) -> Self:
        self._copies = _Copies(self)
        self._copies.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator unless it reads values back."""
        name = func.overloadpacket.__name__
        if name in _REFUSED and not _has_output_size(name, kwargs):
            self.on_host_read(f"aten.{name}: {_REFUSED[name]}", args)
        if name in INDEXING and any(_is_mask(index) for index in args[1]):
            self.on_host_read(f"aten.{name} with a boolean index: {_SHAPE}", args)
        return func(*args, **(kwargs or {}))

    def on_host_read(self, what: str, args: tuple[Any, ...]) -> None:
        """Handle a host read."""
        raise HostReadError(what)


class NotedHostReads(NoHostReads):
    """Record the host reads of a device's tensors inside the `with`, without raising.

    Args:
        device: Type of the device, such as "cuda".
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.host_reads = device, list[str]()

    def on_host_read(self, what: str, args: tuple[Any, ...]) -> None:
        """Record it."""
        if any(tensor.device.type == self.device for tensor in tensors(args)):
            self.host_reads.append(what)


class _Copies(TorchFunctionMode):
    """Finds copies to the host without an operator that a dispatch mode sees on the CPU."""

    def __init__(self, mode: NoHostReads) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _COPIES:
            self.mode.on_host_read(f"Tensor.{func.__name__} copies a tensor to the host", args)
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _has_output_size(name: str, kwargs: Any) -> bool:
    return name == "repeat_interleave" and bool((kwargs or {}).get("output_size"))
