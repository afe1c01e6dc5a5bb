"""Which taps of a network give its maps: its feature pyramid, its stages, or its tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from kd_core.errors import UserError
from kd_core.networks.probe import untouched
from kd_core.networks.tap_paths import entries
from kd_core.networks.tokens import known_tokens
from kd_core.runtime.failures import explain, first_line
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD


class FlatOutput(nn.Module):
    """A network whose output is a dict without others inside: `feature_maps.0` and so on.

    Args:
        net: A network whose output holds tuples or dicts, such as a backbone of transformers.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the tensors of the output by the path to them."""
        return _tensors(self.net(images))


def runner_of(network: Any) -> Any:
    """Return the part that makes the maps: of torchvision's detectors the backbone alone."""
    detectors = (GeneralizedRCNN, RetinaNet, FCOS, SSD)
    return network.backbone if isinstance(network, detectors) else network


def find_maps(
    network: Any, size: int, named: Sequence[str], levels: Sequence[int] | None
) -> tuple[nn.Module, list[str]]:
    """Return the network, flattened where that is needed, and the taps of its maps, in order.

    Args:
        network: In any mode, which is restored.
        size: Side of a square image that it takes.
        named: Taps that the config names; with them nothing is searched.
        levels: Which of timm's levels are asked for (`out_indices`).

    Raises:
        UserError: If no map is found.
    """
    if named:
        return network, list(named)
    if infos := _infos_of_timm(network):
        return network, _of_timm(network, infos, levels)
    runner = runner_of(network)
    found = _tensors(_output(runner, size))
    if runner is not network:
        return network, [f"backbone[{name}]" for name, value in found.items() if value.dim() == 4]
    maps = {name: tap for name, value in found.items() if (tap := _layout(network, name, value))}
    if not maps:
        raise UserError(
            f"KD.TEACHER.NETWORK: {type(network).__name__} returns no maps ({_seen(found)}); name "
            f"modules that give them as KD.TEACHER.MAPS{_suggested(network, size)}"
        )
    nested = any("." in name for name in maps)
    return (FlatOutput(network) if nested else network), list(maps.values())


def _infos_of_timm(network: Any) -> list[dict[str, Any]]:
    """Return what timm says of a whole network's levels; nothing of one with `features_only`."""
    infos = getattr(network, "feature_info", None)
    return infos if isinstance(infos, list) and hasattr(network, "forward_features") else []


def _of_timm(network: Any, infos: Sequence[Any], levels: Sequence[int] | None) -> list[str]:
    """Return the ends of stages; of a plain vision transformer, its tokens after the last norm."""
    if levels is not None:
        try:
            infos = [infos[place] for place in levels]
        except IndexError as error:
            raise UserError(
                f"KD.TEACHER.ARGS.out_indices is {list(levels)}; there are {len(infos)} levels"
            ) from error
    names = [str(info["module"]) for info in infos]
    if known_tokens(network, names[-1]) is None:
        last = ":nhwc" if getattr(network, "output_fmt", None) == "NHWC" else ""
        return [name + last for name in names]
    if levels is None:
        names = ["norm"] if isinstance(getattr(network, "norm", None), nn.Module) else names[-1:]
    return [f"{name}:map" for name in names]


def _layout(network: nn.Module, name: str, value: Tensor) -> str:
    """Return the tap of an output's entry that is a map, or tokens that can be one; else ""."""
    tap = f"output[{name}]" if name else "output"
    if value.dim() == 4 and min(value.shape[1:]) > 1:
        return tap + (":nhwc" if getattr(network, "output_fmt", None) == "NHWC" else "")
    if value.dim() == 3 and "." not in name and known_tokens(network, "") is not None:
        return f"{tap}:map"
    return ""


def _output(network: nn.Module, size: int) -> Any:
    parameter = next(network.parameters())
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with untouched(network), failing(network, size):
        return network(images.to(parameter.device))


class failing:  # noqa: N801 - reads as a sentence: `with failing(...)`
    """Turns an error of a network inside a `with` into one line that names its remedy."""

    def __init__(self, network: Any, size: int) -> None:
        self.network, self.size = network, size

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None or not isinstance(error, Exception) or explain(error):
            return
        settings = getattr(self.network, "pretrained_cfg", None) or {}
        own = (settings.get("input_size") or [getattr(self.network, "image_size", 0)])[-1]
        hint = f" ({own}, as it says)" if isinstance(own, int) and own else ""
        raise UserError(
            f"KD.TEACHER.NETWORK: {type(self.network).__name__} failed on images [1, 3, "
            f"{self.size}, {self.size}] ({type(error).__name__}: {first_line(error)}); if it takes "
            f"one size, set KD.TEACHER.INPUT.SIZE{hint}, or let it take any, as timm's "
            "transformers do with KD.TEACHER.ARGS.dynamic_img_size True; if it takes multiples of "
            "a number, set KD.TEACHER.INPUT.MULTIPLE"
        ) from error


def _tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    """Return the tensors inside a value by the path to them; "" where it is one itself."""
    if isinstance(value, Tensor):
        return {path: value}
    found: dict[str, Tensor] = {}
    for name, item in entries(value).items():
        found |= _tensors(item, f"{path}.{name}" if path else name)
    return found


def _seen(found: dict[str, Tensor]) -> str:
    texts = [f"{name or 'output'} {list(value.shape)}" for name, value in found.items()]
    return ", ".join(texts[:4]) or "no tensor"


def _suggested(network: nn.Module, size: int) -> str:
    """Return the last outermost module of each resolution that gives a map, for a message."""
    seen: dict[int, str] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] > 1:
                seen[output.shape[2]] = name

        return hook

    modules = [(name, module) for name, module in network.named_modules() if name]
    handles = [module.register_forward_hook(note(name)) for name, module in modules]
    try:
        _output(network, size)
    finally:
        for handle in handles:
            handle.remove()
    return f": {list(seen.values())}" if seen else ""
