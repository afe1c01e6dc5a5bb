"""Which taps of a network give its maps: its feature pyramid, its stages, or its tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from kd_core.errors import UserError
from kd_core.networks.probe import untouched
from kd_core.networks.tokens import known_tokens
from torch import Tensor, nn

from kd_det.teachers.levels import device_of, measure
from kd_det.teachers.passes import FlatOutput, StageMaps, failing, runner_of, tensors_in


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
        return _of_timm(network, size, infos, levels)
    runner = runner_of(network)
    found = tensors_in(_output(runner, size))
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


def _of_timm(
    network: Any, size: int, infos: Sequence[Any], levels: Sequence[int] | None
) -> tuple[nn.Module, list[str]]:
    """Return the ends of stages; of a plain vision transformer, its tokens after the last norm.

    Where these are not modules of the whole network, or give no maps, timm makes the maps.
    """
    if levels is not None:
        try:
            infos = [infos[place] for place in levels]
        except IndexError as error:
            raise UserError(
                f"KD.TEACHER.ARGS.out_indices is {list(levels)}; there are {len(infos)} levels"
            ) from error
    names = [str(info["module"]) for info in infos]
    there = set(names) <= {name for name, _ in network.named_modules() if name}
    if there and known_tokens(network, names[-1]) is not None:
        if levels is None:
            last = isinstance(getattr(network, "norm", None), nn.Module)
            names = ["norm"] if last else names[-1:]
        return network, [f"{name}:map" for name in names]
    layout = ":nhwc" if getattr(network, "output_fmt", None) == "NHWC" else ""
    taps = [name + layout for name in names]
    if not hasattr(network, "forward_intermediates") or (there and _give_maps(network, taps, size)):
        return network, taps
    norm = len({info["reduction"] for info in infos}) == 1  # others refuse it
    places = range(len(infos))
    return StageMaps(network, levels, norm=norm), [f"output[{place}]:nchw" for place in places]


def _give_maps(network: nn.Module, taps: Sequence[str], size: int) -> bool:
    """Return whether all taps give maps whose channels are known to be where their layout says."""
    try:
        with failing(network, size):
            return len(measure(network, network, taps, [size])) == len(taps)
    except UserError:
        return False


def _layout(network: nn.Module, name: str, value: Tensor) -> str:
    """Return the tap of an output's entry that is a map, or tokens that can be one; else ""."""
    tap = f"output[{name}]" if name else "output"
    if value.dim() == 4 and min(value.shape[1:]) > 1:
        return tap + (":nhwc" if getattr(network, "output_fmt", None) == "NHWC" else "")
    if value.dim() == 3 and "." not in name and known_tokens(network, "") is not None:
        return f"{tap}:map"
    return ""


def _output(network: nn.Module, size: int) -> Any:
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with untouched(network), failing(network, size):
        return network(images.to(device_of(network)))


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
