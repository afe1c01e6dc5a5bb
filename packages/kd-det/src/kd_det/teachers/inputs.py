"""What a network wants of its images: order of channels, range, mean and deviation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from kd_core.errors import UserError
from torch import nn

from kd_det.teachers.factory import torchvision_preset

_WHERE = "KD.TEACHER.INPUT"
_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True)
class InputFormat:
    """How pixels are fed: in this order and range, minus the mean, by the deviation.

    Args:
        order: "RGB" or "BGR".
        range: Largest value of a pixel before the mean is subtracted: 1 or 255.
        mean: Of each channel, in that order and range.
        std: Deviation likewise.
    """

    order: str
    range: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def input_format(network: nn.Module, call: Mapping[str, Any], node: CfgNode) -> InputFormat:
    """Return the format that the config says, or else the network itself.

    Args:
        network: Detectors of torchvision and networks of timm know it.
        call: The node that made it; of torchvision's classifiers the preset counts.
        node: `KD.TEACHER.INPUT`.

    Raises:
        UserError: If neither says it, or what is said does not make sense.
    """
    known = _known(network, call)
    given: dict[str, Any] = {
        "FORMAT": node.FORMAT or known.get("FORMAT"),
        "RANGE": node.RANGE or known.get("RANGE"),
        "PIXEL_MEAN": list(node.PIXEL_MEAN) or known.get("PIXEL_MEAN"),
        "PIXEL_STD": list(node.PIXEL_STD) or known.get("PIXEL_STD"),
    }
    if missing := [f"{_WHERE}.{key}" for key, value in given.items() if not value]:
        raise UserError(
            f"{', '.join(missing)}: {type(network).__name__} does not say which images it was "
            "trained with; set FORMAT (RGB or BGR), RANGE (1 or 255), PIXEL_MEAN and PIXEL_STD"
        )
    _check(given)
    return InputFormat(
        given["FORMAT"], given["RANGE"], tuple(given["PIXEL_MEAN"]), tuple(given["PIXEL_STD"])
    )


def multiple_of(network: Any, node: CfgNode) -> int:
    """Return of what height and width of the images must be multiples; 1 for most networks."""
    if node.MULTIPLE < 0:
        raise UserError(f"{_WHERE}.MULTIPLE is {node.MULTIPLE}; wanted 0, or a number of pixels")
    if node.MULTIPLE:
        return int(node.MULTIPLE)
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    patch = patch or getattr(getattr(network, "config", None), "patch_size", None)
    patch = patch or getattr(network, "patch_size", 1)
    sides = patch if isinstance(patch, Sequence) else [patch]
    return max(sides) if all(isinstance(side, int) and side > 0 for side in sides) else 1


def _known(network: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """Return what torchvision and timm say; their images are RGB in [0, 1]."""
    preset = torchvision_preset(call)
    settings = getattr(network, "pretrained_cfg", None)
    transform: Any = getattr(network, "transform", None)
    if hasattr(transform, "image_mean") and hasattr(transform, "image_std"):
        mean, std = transform.image_mean, transform.image_std
    elif isinstance(settings, Mapping) and settings.get("mean") and settings.get("std"):
        mean, std = settings["mean"], settings["std"]
    elif hasattr(preset, "mean") and hasattr(preset, "std"):
        mean, std = preset.mean, preset.std
    else:
        return {}
    return {"FORMAT": "RGB", "RANGE": 1, "PIXEL_MEAN": list(mean), "PIXEL_STD": list(std)}


def _check(given: Mapping[str, Any]) -> None:
    if given["FORMAT"] not in _ORDERS:
        raise UserError(f"{_WHERE}.FORMAT is {given['FORMAT']!r}; wanted RGB or BGR")
    if given["RANGE"] not in (1, 255):
        raise UserError(f"{_WHERE}.RANGE is {given['RANGE']!r}; wanted 1 or 255")
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        values = given[key]
        numbers = [value for value in values if isinstance(value, int | float)]
        if len(values) != 3 or len(numbers) != 3 or not all(map(math.isfinite, numbers)):
            raise UserError(f"{_WHERE}.{key} is {values!r:.80}; wanted three finite numbers")
    if min(given["PIXEL_STD"]) <= 0:
        raise UserError(f"{_WHERE}.PIXEL_STD is {given['PIXEL_STD']}; wanted numbers above 0")
    largest = max(map(abs, given["PIXEL_MEAN"]))
    if largest > given["RANGE"] or (given["RANGE"] == 255 and 0 < largest < 1):
        raise UserError(
            f"{_WHERE}.PIXEL_MEAN is {given['PIXEL_MEAN']}, but pixels go from 0 to "
            f"{given['RANGE']} ({_WHERE}.RANGE): give both in one unit"
        )
