"""Weights of torchvision's networks under the names of Detectron2's backbones."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from kd_core.errors import UserError, nearest
from kd_core.files import checkpoint
from kd_core.files.best_match import choose, matches
from kd_core.files.mismatch import Mismatch
from kd_core.runtime.console import out
from torch import Tensor

from kd_det.networks.architectures import ARCHITECTURES
from kd_det.networks.backbones import MOBILENETV2_STAGES
from kd_det.weights import read_weights

_PREFIX = "backbone.bottom_up."  # of every detector with a feature pyramid
_SETTINGS = """These weights need in the config (configs/det/*_R_18_*.yaml has it):
INPUT.FORMAT RGB
MODEL.PIXEL_MEAN [123.675,116.28,103.53]
MODEL.PIXEL_STD [58.395,57.12,57.375]
MODEL.RESNETS.STRIDE_IN_1X1 False"""


def write(architecture: str, weights: str | None, out_file: str) -> None:
    """Write the weights of a backbone, and print the settings that they need.

    Args:
        architecture: One of `ARCHITECTURES`.
        weights: File of its state dict; None downloads torchvision's.
        out_file: Path of the file, which must end in .pth.
    """
    path = Path(out_file)
    if path.suffix != ".pth":
        raise UserError(f"--out {path}: wanted a name that ends in .pth, as Detectron2 does")
    state = read_weights(weights) if weights else _download(architecture)
    converted = convert(state, architecture)
    checkpoint.save({"model": converted, "__author__": "torchvision"}, path)
    out.print(f"{path}: {len(converted)} tensors. {_SETTINGS}")


def convert(state: Mapping[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Rename a classifier's weights to those of a detector's backbone; the classifier is left out.

    The detector needs Detectron2's ResNet with STRIDE_IN_1X1 False, or MobileNetV2 of
    `kd_det.networks.backbones`. All names are complete, so that Detectron2 need not guess.

    Args:
        state: State dict of torchvision's network, with or without its classifier, or of a detector
            that has it as its backbone.
        architecture: One of `ARCHITECTURES`.

    Raises:
        UserError: If the weights are of another network.
    """
    if architecture not in ARCHITECTURES:
        hint = nearest(architecture, ARCHITECTURES)
        raise UserError(f"no architecture {architecture!r} can be converted{hint}")
    rename = _mobilenet_name if architecture == "mobilenet_v2" else _resnet_name
    with torch.device("meta"):  # names and shapes alone
        network = torchvision.models.get_model(architecture, weights=None)
    own = _backbone(network.state_dict())
    match = choose(matches(state, own), own, "")  # in a detector, under backbone.body
    found = _backbone(match.state if match else state)
    if wrong := str(Mismatch.between(found, own)):
        raise UserError(f"not weights of torchvision's {architecture}: {wrong}")
    return {_PREFIX + rename(name): value for name, value in found.items()}


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the classifier, and the batch counters that a frozen BatchNorm does not have."""
    other = re.compile(r"^(fc|classifier|features\.18)\.|\.num_batches_tracked$")
    return {name: value for name, value in state.items() if not other.search(name)}


def _resnet_name(name: str) -> str:
    """Rename layer1.0.bn2.bias to res2.0.conv2.norm.bias, bn1 to stem.conv1.norm and so on."""
    name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    stage = re.match(r"layer(\d)", name)
    return f"res{int(stage[1]) + 1}{name[stage.end() :]}" if stage else f"stem.{name}"


def _mobilenet_name(name: str) -> str:
    """Rename features.4.conv.0.0.weight to res3.0.conv.0.0.weight and so on."""
    _, number, rest = name.split(".", maxsplit=2)
    layer = int(number)
    stage = next(stage for stage, layers in MOBILENETV2_STAGES.items() if layer in layers)
    return f"{stage}.{layer - MOBILENETV2_STAGES[stage].start}.{rest}"


def _download(architecture: str) -> Mapping[str, Tensor]:
    weights = torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a wrong hash
        raise UserError(
            f"{weights.url} cannot be downloaded ({error}); download it elsewhere and name the "
            f"file with --weights"
        ) from error
