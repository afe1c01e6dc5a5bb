"""Rebuild the classifier of a finished run from its exported file."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kd_core.config.trust import build_from_file
from kd_core.errors import UserError
from kd_core.files import artifacts
from kd_core.files.artifacts import find_student
from kd_core.files.weights import load_weights, read_state_dict
from kd_core.networks.image_channels import input_channels
from kd_core.networks.image_task import height_and_width
from kd_core.networks.probe import materialise
from torch import nn

from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits
from kd_cls.feature_network import FeatureNetwork, feature_roles
from kd_cls.known_networks import KNOWN
from kd_cls.libraries.heads import renew_as_in
from kd_cls.libraries.outputs import without_auxiliary
from kd_cls.roles import network_roles

FACTS = {
    "network": artifacts.NODE,
    "classes": artifacts.NAMES,
    "mean": artifacts.MEAN,
    "std": artifacts.STD,
    "image_size": artifacts.SIZE,
}
OPTIONAL = {
    "features": artifacts.COUNT,
    "shorter_side": artifacts.SIZE,
    "output": artifacts.KEY,
    "multi_label": artifacts.FLAG,
}


def load_student(path: str | Path) -> Classifier:
    """Rebuild the classifier of a finished run, in evaluation mode on the CPU.

    Called with `{"image": images}`, uint8 or floats in [0, 1] of any size, it returns logits, or
    the features of a student that was trained without classes (a `FeatureNetwork`).

    A network that is not of the zoo, torchvision or timm needs `trusting(NAME)` of
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
    make = partial(_build, facts["network"], len(facts.get("classes", "1")), file, sides)
    network = artifacts.rebuild(make, lambda network: load_weights(network, file))
    roles, kind = network_roles(network, [sides]), Classifier
    if "features" in facts:
        channels, kind = len(facts["mean"]), FeatureNetwork
        roles = feature_roles(network, roles, facts.get("output"), channels, sides)
    classifier = kind(
        network,
        mean=facts["mean"],
        std=facts["std"],
        size=facts["image_size"],
        multi_label=facts.get("multi_label", False),
        output=facts.get("output"),
        roles=roles,
    )
    return classifier.eval()


def read_facts(file: Path) -> dict[str, Any]:
    """Return the metadata of a student's file.

    Returns:
        `network` (its config node), `classes` (names) or, of a student that ends in features, their
        number as `features`, `mean` and `std` (of each channel, in
        [0, 1]), `image_size` (pixels of a side, or height and width), `shorter_side` (of an image
        before the central crop, if it is another); `output` if the network
        returns its logits among others, `multi_label` if an image may have several classes.

    Raises:
        UserError: If the file is damaged, or an entry is missing or wrong.
    """
    return artifacts.read_facts(file, FACTS, OPTIONAL, instead={"classes": "features"})


def classes_of(facts: Mapping[str, Any], file: Path) -> list[str]:
    """Return the names of a student's classes.

    Raises:
        UserError: If it ends in features.
    """
    if "classes" not in facts:
        raise UserError(
            f"{file}: ends in {facts['features']} features and has no classes; train a head on "
            f"labelled images: student.weights={file} student.new_head=True"
        )
    names: list[str] = facts["classes"]
    return names


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


def size_facts(size: int | Sequence[int] | None, data: DataSplits) -> dict[str, Any]:
    """Return what a student's file says of sizes: its images', and a photo's before the crop.

    Args:
        size: That the student resizes its images to, if it does.
        data: What it was trained on.
    """
    side, shorter = size or data.image_size, data.shorter_side
    if shorter is None or shorter == data.image_size:
        return {"image_size": side}
    scaled = round(shorter * min(height_and_width(side)) / data.image_size)
    return {"image_size": side, "shorter_side": scaled}


def sides_of(facts: Mapping[str, Any], file: Path) -> tuple[int, int]:
    """Return the side of a student's images, and the shorter side of a photo before the crop.

    Raises:
        UserError: If its images are not square.
    """
    side = square_side(facts["image_size"], file)
    return side, square_side(facts.get("shorter_side", side), file)


def resize_rule(side: int, shorter_side: int) -> str:
    """Return in words how a photo becomes the square that a student takes."""
    return (
        f"turned upright as EXIF says; shorter side to {shorter_side} pixels, bilinear, "
        f"antialiased; centre crop of {side} x {side} pixels"
    )


def _build(
    node: Mapping[str, Any], num_classes: int, file: Path, sides: tuple[int, int]
) -> nn.Module:
    largest = artifacts.largest_tensor(file)
    where = f"{file}: network"
    network = build_from_file(node, where, KNOWN, largest=largest, num_classes=num_classes)
    mean = read_facts(file)["mean"]
    materialise(network, torch.zeros(2, input_channels(network, len(mean)), *sides))
    state = read_state_dict(file)
    without_auxiliary(network, state)
    renew_as_in(network, state, num_classes)
    return network
