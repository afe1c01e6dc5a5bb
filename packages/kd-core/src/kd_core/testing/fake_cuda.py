"""A GPU without a GPU: tensors on `cuda` that have shape, type and device, but no values."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from unittest import SkipTest
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map

from kd_core.testing import fake_backward
from kd_core.training.host_reads import INDEXING, HostReadError, NoHostReads

_COPIES = ("_to_copy", "copy_", "lift_fresh_copy")
_JOIN = ("cat", "stack")  # they do not take even numbers of the host
_IN_PLACE = ("_fused_", "_amp_")  # operators that have a kernel alone, and return nothing new
_COMPARE = ("_to_copy", "lt", "le", "gt", "ge")  # what optimizers do with a rate that is a tensor
_CPU = torch.device("cpu")
_NO_DRIVER = "_ensureCUDADeviceGuardSet"
"""What `FakeTensorMode` calls to do without CUDA's driver; torch 2.6 does not have it."""


class WrongDeviceError(AssertionError):
    """Tensors of several devices met."""


class _Mode(FakeTensorMode):
    """The one mode of all fake tensors, also of copied networks."""

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class FakeCuda(NoHostReads):
    """Inside the `with`, tensors on `cuda` are fake, on machines with and without a GPU.

    Code runs as it is, `.to("cuda")` and `device="cuda"` included. What it computes on the host is
    computed; of what it computes on the GPU only shapes, types and devices are known. Autocast is
    that of CUDA. A backward pass runs the derivatives of all operators on fake tensors too.

    It sees no kernel and no value, no memory, streams and graphs, and not autograd's engine.

    Raises:
        SkipTest: Where torch cannot do that: an old release, built for CUDA, without a GPU.
        WrongDeviceError: Where tensors of several devices meet.
        HostReadError: At a host read, a shape that depends on data, or a copy from the host that
            the host waits for; see `waiting`.
    """

    _tensors = _Mode(static_shapes=True)

    def __init__(self) -> None:
        super().__init__()
        self._may_wait = False
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        if not (hasattr(torch._C, _NO_DRIVER) or torch.cuda.is_available()):
            raise SkipTest(f"torch {torch.__version__} needs a GPU for fake tensors on one")
        for name, value in _PATCHES.items():
            self._entered.enter_context(patch(name, value))
        self._entered.enter_context(self._tensors)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the host wait, as it may outside of steps; what it reads is 1, if not known."""
        before, self._may_wait = self._may_wait, True
        try:
            yield
        finally:
            self._may_wait = before

    def on_host_read(self, what: str, args: tuple[Any, ...]) -> None:
        """Raise at a host read of what is on the GPU."""
        if not self._may_wait and any(isinstance(x, FakeTensor) for x in tree_leaves(args)):
            raise HostReadError(what)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator: for real on the host, for its shapes on the GPU."""
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        host = [tensor for tensor in given if not isinstance(tensor, FakeTensor)]
        if len(host) == len(given) and _is_cpu(kwargs.get("device")):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if self._may_wait and name == "_local_scalar_dense":
            with unset_fake_temporarily():
                return _real(given[0]).item()
        _check_devices(name, host, kwargs.get("generator"))
        if name.startswith(_IN_PLACE):
            return args[0] if func._schema.returns else None
        if host:
            self._check_copies(name, host, args, kwargs)
            args, kwargs = tree_map(self._without_values, (args, kwargs))
        result = self._shapes_of(func, types, args, kwargs)
        if self._may_wait and name in _COMPARE:
            result.known = _known(func, given[0], args)
        return tree_map(self._on_host, result)

    def _shapes_of(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        except RuntimeError as error:
            if "same device" not in str(error):
                raise
            raise WrongDeviceError(f"{func}: {error}") from error

    def _without_values(self, value: Any) -> Any:
        real = isinstance(value, Tensor) and not isinstance(value, FakeTensor)
        return self._tensors.from_tensor(value) if real else value

    def _on_host(self, value: Any) -> Any:
        """Return what was read to the host as a real tensor, if it may be read."""
        if not isinstance(value, FakeTensor) or value.device != _CPU:
            return value
        if not self._may_wait:
            raise HostReadError("a tensor is copied to the host")
        return _real(value)

    def _check_copies(
        self, name: str, host: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Raise at a copy from the host that the host waits for."""
        asynchronous = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        to_host = name == "copy_" and host[0] is args[0]
        waits = name in _COPIES and not asynchronous and not to_host
        waits |= name in INDEXING and any(tensor.dim() for tensor in host)
        if waits and not self._may_wait:
            raise HostReadError(
                f"aten.{name} copies {list(host[0].shape)} from the host, which waits for the "
                "device; make it there (torch.full, torch.arange), or keep it as a buffer"
            )


def _check_devices(name: str, host: list[Tensor], generator: torch.Generator | None) -> None:
    """Raise at mixtures of devices that fake tensors let pass and kernels do not."""
    if generator is not None and generator.device == _CPU:
        raise WrongDeviceError(f"aten.{name}: random numbers on cuda, a generator on the cpu")
    if host and (name in _JOIN or name.startswith(_IN_PLACE)):
        raise WrongDeviceError(f"aten.{name}: tensors on cuda and the cpu")


def _is_cpu(device: Any) -> bool:
    return device is None or torch.device(device) == _CPU


def _known(func: Any, given: Tensor, args: tuple[Any, ...]) -> Tensor | None:
    """Return a number that came from the host, or how it compares with another one."""
    known = getattr(given, "known", None) if isinstance(given, FakeTensor) else given
    if func.overloadpacket.__name__ == "_to_copy":
        return known
    if known is None or isinstance(args[1], Tensor):
        return None
    with unset_fake_temporarily():
        compared: Tensor = func(known, *args[1:])
        return compared


def _real(tensor: Any) -> Tensor:
    """Return a tensor on the host: of the value that is known, or of ones."""
    known: Tensor | None = getattr(tensor, "known", None)
    with unset_fake_temporarily():
        values = torch.ones(tensor.shape) if known is None else known
        return values.to(tensor.dtype)


def _yes(*args: Any, **kwargs: Any) -> bool:
    return True


def _no() -> bool:
    return False


_PATCHES: dict[str, Callable[..., Any]] = {
    # Without a GPU, autocast of CUDA switches itself off.
    "torch.cuda.amp.common.amp_definitely_not_available": _no,
    "torch.cuda.is_bf16_supported": _yes,
    # Autograd's engine asks the GPU for its streams.
    "torch.Tensor.backward": fake_backward.backward,
    "torch.autograd.grad": fake_backward.grad,
}
