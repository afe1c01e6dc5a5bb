"""One pass of a network with all that its modules were given and gave, to find taps in it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from kd_core.networks.grids import first_input
from kd_core.networks.probe import untouched
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_RECTANGLE = (128, 160)  # height and width differ, so that they cannot be mistaken for one another
_USUAL = (224, 224)
_TINY = 0.01


class Place(NamedTuple):
    """A tensor at a module that ran once.

    Attributes:
        tap: Of the tensor: `path` or `path:in`.
        tensor: Itself, which later modules may have changed in place.
        value: A copy of what it was.
    """

    tap: str
    tensor: Tensor
    value: Tensor


class Recording(NamedTuple):
    """What was seen in a pass over one image.

    Attributes:
        image: [1, C, H, W].
        result: What the pass returned.
        places: Outputs and first inputs of the modules that ran once, in the order of execution.
    """

    image: Tensor
    result: Any
    places: list[Place]

    @property
    def order(self) -> str:
        """What a tap of a map [N, C, H, W] says of it: nothing, if other sizes would show it."""
        return ":nchw" if self.image.shape[2] == self.image.shape[3] else ""

    def at(self, tap: str) -> Tensor | None:
        """Return the value of a tap, or None if its module did not run once, or gave no tensor."""
        return next((place.value for place in self.places if place.tap == tap), None)


def record(
    network: nn.Module,
    run: Callable[[Tensor], Any],
    sizes: Sequence[tuple[int, int]] = (),
) -> Recording | None:
    """Run a network on one image; None if it takes none of the sizes, or is not real yet.

    Args:
        network: Its modes and generators are as before afterwards.
        run: Runs it, or parts of it.
        sizes: Height and width to try last, before 224 x 224.
    """
    parameters = list(network.parameters())
    if not parameters or any(p.is_meta or is_lazy(p) for p in parameters):
        return None
    device = parameters[0].device
    for size in dict.fromkeys((*_own_sizes(network), *sizes, _USUAL)):
        for channels in dict.fromkeys((input_channels(network), 3)):
            image = torch.linspace(-1, 1, channels * size[0] * size[1], device=device)
            image = torch.sin(977 * image).view(1, channels, *size)  # no two rows are equal
            with suppress(Exception):  # networks raise anything for what they do not take
                return _recorded(network, run, image)
    return None


@contextmanager
def distinct(network: nn.Module) -> Iterator[None]:
    """Give vectors of weights that are nearly 0 other values inside the `with`.

    Such scales (of a layer, of the last BatchNorm of a block) make a new network's blocks return
    what they get, so that taps could not be distinguished.
    """
    kept = []
    for parameter in network.parameters():
        line = not parameter.is_meta and not is_lazy(parameter) and parameter.numel()
        if line == max(parameter.shape, default=1) and bool(parameter.abs().amax() < _TINY):
            kept.append((parameter, parameter.detach().clone()))
    try:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(torch.linspace(0.3, 0.7, value.numel()).view_as(value))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)


def input_channels(network: nn.Module) -> int:
    """Return the channels of the images that a network takes: those of its first convolution."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3


def _own_sizes(network: nn.Module) -> Iterator[tuple[int, int]]:
    """Yield sizes that a network says of itself; any is right for one that does not."""
    for module in network.modules():
        size = getattr(module, "img_size", getattr(module, "image_size", None))
        if isinstance(size, int):
            yield size, size
        elif isinstance(size, tuple | list) and len(size) == 2:
            yield int(size[0]), int(size[1])
    config = getattr(network, "pretrained_cfg", None) or {}
    if not config.get("fixed_input_size"):
        yield _RECTANGLE
    if config.get("input_size"):
        yield tuple(config["input_size"][-2:])


def _recorded(network: nn.Module, run: Callable[[Tensor], Any], image: Tensor) -> Recording:
    inputs: dict[str, list[Place | None]] = {}
    outputs: dict[str, list[Place | None]] = {}
    order: list[tuple[dict[str, list[Place | None]], str]] = []

    def note(kept: dict[str, list[Place | None]], path: str, tap: str, value: Any) -> None:
        place = Place(tap, value, value.clone()) if isinstance(value, Tensor) else None
        kept.setdefault(path, []).append(place)
        order.append((kept, path))

    def before(path: str) -> Callable[..., None]:
        return lambda module, args, kwargs: note(
            inputs, path, f"{path}:in", first_input(args, kwargs)
        )

    def after(path: str) -> Callable[..., None]:
        return lambda module, args, output: note(outputs, path, path, output)

    handles: list[Any] = []
    for path, module in network.named_modules():
        if path:
            handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
            handles.append(module.register_forward_hook(after(path)))
    try:
        with untouched(network):
            result = run(image)
    finally:
        for handle in handles:
            handle.remove()
    once = [kept[path][0] for kept, path in order if len(kept[path]) == 1]
    return Recording(image, result, [place for place in once if place is not None])
