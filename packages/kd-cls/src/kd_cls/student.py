"""Rebuild the classifier of a finished run from its exported file."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kd_core.config.trust import build_from_file
from kd_core.errors import UserError
from kd_core.files import artifacts
from kd_core.files.artifacts import find_student
from kd_core.files.weights import load_weights, read_state_dict
from kd_core.networks.image_task import height_and_width
from kd_core.networks.probe import materialise
from torch import Tensor, nn

from kd_cls.classifier import Classifier
from kd_cls.known_networks import KNOWN
from kd_cls.networks import replace_head
from kd_cls.roles import network_roles

FACTS = {
    "network": artifacts.NODE,
    "classes": artifacts.NAMES,
    "mean": artifacts.MEAN,
    "std": artifacts.STD,
    "image_size": artifacts.SIZE,
}


def load_student(path: str | Path) -> Classifier:
    """Rebuild the classifier of a finished run, in evaluation mode on the CPU.

    Called with `{"image": images}`, uint8 or floats in [0, 1] of any size, it returns logits. A
    network that is not of the zoo, torchvision or timm needs `trusting(NAME)` of
    `kd_core.config.trusted` around.

    Args:
        path: See `find_student`.

    Raises:
        UserError: If there is no such file, or the network is neither known nor trusted, cannot be
            built or does not fit.
    """
    file = find_student(path)
    facts = read_facts(file)
    sides = height_and_width(facts["image_size"])
    make = partial(_build, facts["network"], len(facts["classes"]), file, sides)
    network = artifacts.rebuild(make, lambda network: load_weights(network, file))
    classifier = Classifier(
        network,
        mean=facts["mean"],
        std=facts["std"],
        size=facts["image_size"],
        roles=network_roles(network),
    )
    return classifier.eval()


def read_facts(file: Path) -> dict[str, Any]:
    """Return the metadata of a student's file.

    Returns:
        `network` (its config node), `classes` (names), `mean` and `std` (of each channel, in
        [0, 1]), `image_size` (pixels of a side, or height and width).

    Raises:
        UserError: If the file is damaged, or an entry is missing or wrong.
    """
    return artifacts.read_facts(file, FACTS)


def square_side(image_size: Any, file: Path) -> int:
    """Return the side of a student's images in pixels.

    Raises:
        UserError: If they are not square.
    """
    if isinstance(image_size, int):
        return image_size
    height, width = image_size
    if height != width:
        raise UserError(f"{file}: its images are {height} x {width}; here they must be square")
    return int(height)


def _build(
    node: Mapping[str, Any], num_classes: int, file: Path, sides: tuple[int, int]
) -> nn.Module:
    largest = artifacts.largest_tensor(file)
    where = f"{file}: network"
    network = build_from_file(node, where, KNOWN, largest=largest, num_classes=num_classes)
    materialise(network, torch.zeros(2, 3, *sides))
    if not _fits(read_state_dict(file), network.state_dict()):
        with suppress(UserError):  # no linear layer; then load_weights says what does not fit
            replace_head(network, num_classes)
    return network


def _fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    return all(name in own and own[name].shape == value.shape for name, value in state.items())
