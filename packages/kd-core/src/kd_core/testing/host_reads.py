"""Refuses what would make the host wait for the device, or a shape depend on data."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
_COPIES = (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__)


class HostReadError(AssertionError):
    """A computation on the device needed the host to look at its values."""


class NoHostReads(TorchDispatchMode):
    """Raise at every host read and data-dependent shape inside the `with`, backward included.

    A training step can be captured as a CUDA graph only if it has none. It works on the CPU, so
    the rule holds where no test machine has a GPU.

    Raises:
        HostReadError: Naming the operator and what to write instead.
    """

    def __enter__(self) -> "NoHostReads":
        self._copies = _NoCopies()
        self._copies.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator unless it is refused."""
        name = func.overloadpacket.__name__
        if name in _REFUSED and not _has_output_size(name, kwargs):
            raise HostReadError(f"aten.{name}: {_REFUSED[name]}")
        if name in _INDEXING and any(_is_mask(index) for index in args[1]):
            raise HostReadError(f"aten.{name} with a boolean index: {_SHAPE}")
        return func(*args, **(kwargs or {}))


class _NoCopies(TorchFunctionMode):
    """Refuses what copies to the host without an operator that a dispatch mode sees on the CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _COPIES:
            raise HostReadError(f"Tensor.{func.__name__} copies a tensor to the host")
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _has_output_size(name: str, kwargs: Any) -> bool:
    return name == "repeat_interleave" and bool((kwargs or {}).get("output_size"))
