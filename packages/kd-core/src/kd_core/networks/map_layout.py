"""Whether maps of four dimensions are [N, C, H, W] or [N, H, W, C], seen in a pass."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)
from torch.utils.hooks import RemovableHandle

from kd_core.errors import UserError
from kd_core.networks.grids import first_input
from kd_core.networks.probe import tap_values, untouched
from kd_core.networks.tap_paths import TapPath, parse
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch

_FIRST = (
    *(_ConvNd, _BatchNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd),
    nn.GroupNorm,
)
"""Modules whose inputs and outputs have their channels first."""

_LAST = (nn.Linear, nn.LayerNorm)
"""Modules that work on the last dimension. Subclasses may turn their input round."""


def map_values(
    model: nn.Module, tap: FeatureTap, batch: Batch, maps: Iterable[str]
) -> tuple[FeatureTap, dict[str, Any]]:
    """Return what `tap_values` does, once the taps that are to be maps are seen to be so.

    Args:
        model: The model.
        tap: All taps.
        batch: What it is run on.
        maps: Those among the taps that criteria on maps read.

    Raises:
        UserError: See `MapLayout.check`.
    """
    with MapLayout(tap.network, maps) as layout:
        tap, values = tap_values(model, tap, batch)
    layout.check()
    return tap, values


class MapLayout:
    """Watches a network inside a `with`, to find out where the channels of tapped maps are.

    A convolution, a BatchNorm or a pooling that reads or makes the tensor shows that its channels
    come first. Where none does, the network runs once more on an image of twice the size: height
    and width are the dimensions that change.

    Args:
        network: Whose taps they are.
        taps: Those that are to be maps; anything of other than four dimensions is left out.
    """

    def __init__(self, network: nn.Module, taps: Iterable[str]) -> None:
        self.network = network
        self.taps = [parse(tap, network) for tap in dict.fromkeys(taps)]
        self._handles: list[RemovableHandle] = []
        self._signs: dict[int, tuple[Any, set[str]]] = {}
        self._values: dict[str, Tensor] = {}
        self._input: tuple[tuple[Any, ...], dict[str, Any]] = (), {}

    def __enter__(self) -> "MapLayout":
        if self.taps:
            self._handles = [*self._watch_signs(), *self._watch_taps(self._values)]
            self._handles.append(
                self.network.register_forward_pre_hook(self._note_input, with_kwargs=True)
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def check(self) -> None:
        """Reject taps that are not maps [N, C, H, W], after the `with`.

        Raises:
            UserError: If the channels of a map are last and its tap does not say so, or says so and
                they are not, or if nothing shows where they are.
        """
        orders = {name: self._sign(value) for name, value in self._values.items()}
        if any(order != "nchw" for order in orders.values()):
            orders |= self._measured(orders)
        for tap in self.taps:
            if tap.name in self._values:
                self._judge(tap, self._values[tap.name], orders[tap.name])

    def _judge(self, tap: TapPath, value: Tensor, order: str) -> None:
        said = tap.layout.order if tap.layout else ""
        if not order and not said and self._in_doubt() and max(value.shape[2:]) > 1:
            raise UserError(
                f"tap {tap.name!r}: it gives {list(value.shape[1:])} for an image, and nothing "
                f"shows whether the channels come first or last; write '{tap.plain}:nchw' or "
                f"'{tap.plain}:nhwc'"
            )
        if order and order != (said or "nchw"):
            right = "[N, C, H, W]" if order == "nchw" else "[N, H, W, C]"
            raise UserError(
                f"tap {tap.name!r}: it gives a map {right}, {list(value.shape[1:])} for an image; "
                f"write '{_written(tap, order)}'"
            )

    def _in_doubt(self) -> bool:
        """Return whether channels may be last: in a network of images, or that has such maps."""
        lasts = any("nhwc" in orders for _, orders in self._signs.values())
        return lasts or isinstance(first_input(*self._input), Tensor)

    def _sign(self, value: Tensor) -> str:
        """Return the order that modules around a tensor show; "" without or with several."""
        made, orders = self._signs.get(id(value), (None, set()))
        return next(iter(orders)) if len(orders) == 1 and made() is value else ""

    def _measured(self, orders: Mapping[str, str]) -> dict[str, str]:
        """Return the orders that a pass on a larger image shows, else what timm says."""
        larger: dict[str, Tensor] = {}
        handles = self._watch_taps(larger)
        try:
            with suppress(Exception):  # many networks take one size; what ran before counts
                self._run_larger()
        finally:
            for handle in handles:
                handle.remove()
        found = {}
        for name, order in orders.items():
            shapes = [values[name].shape for values in (self._values, larger) if name in values]
            changed = [place for place in (1, 2, 3) if len({shape[place] for shape in shapes}) > 1]
            if changed in ([2, 3], [1, 2]):
                found[name] = "nchw" if changed == [2, 3] else "nhwc"
            elif not order and getattr(self.network, "output_fmt", None) == "NHWC":
                found[name] = "nhwc"
        return found

    def _run_larger(self) -> None:
        args, kwargs = self._input
        image = first_input(args, kwargs)
        if not isinstance(image, Tensor) or image.dim() != 4:
            return
        larger = F.interpolate(image[:1].float(), scale_factor=2).to(image.dtype)
        args = (larger, *args[1:]) if args else ()
        kwargs = kwargs if args else {**kwargs, next(iter(kwargs)): larger}
        with untouched(self.network):
            self.network(*args, **kwargs)

    def _note_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._input = args, kwargs

    def _watch_signs(self) -> list[RemovableHandle]:
        def after(order: str) -> Callable[..., None]:
            def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                for value in (*args[:1], output):
                    if isinstance(value, Tensor) and value.dim() == 4:
                        made, orders = self._signs.get(id(value), (None, set()))
                        orders = orders if made is not None and made() is value else set()
                        self._signs[id(value)] = weakref.ref(value), orders | {order}

            return note

        return [
            module.register_forward_hook(after("nchw" if isinstance(module, _FIRST) else "nhwc"))
            for module in self.network.modules()
            if isinstance(module, _FIRST) or type(module) in _LAST
        ]

    def _watch_taps(self, kept: dict[str, Tensor]) -> list[RemovableHandle]:
        def note(tap: TapPath, value: Any) -> None:
            if not tap.every_call:
                with suppress(UserError):  # the tap itself says what is wrong
                    value = tap.select(value)
            if isinstance(value, Tensor) and value.dim() == 4:
                kept[tap.name] = value

        def watch(tap: TapPath) -> RemovableHandle:
            module = self.network.get_submodule(tap.path)
            if not tap.input:
                return module.register_forward_hook(lambda m, args, out: note(tap, out))
            return module.register_forward_pre_hook(
                lambda m, args, kwargs: note(tap, first_input(args, kwargs)), with_kwargs=True
            )

        return [watch(tap) for tap in self.taps]


def _written(tap: TapPath, order: str) -> str:
    """Return a tap with the right order of dimensions, in the layout that was wanted."""
    wanted = tap.layout.wanted if tap.layout and tap.layout.order else "map"
    if wanted == "map":
        return f"{tap.plain}{':nhwc' * (order == 'nhwc')}"
    return f"{tap.plain}:{order}:{wanted}"
