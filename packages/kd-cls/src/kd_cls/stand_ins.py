"""Stand-ins for data sets and pretrained weights in a dry run."""

from typing import Any

from kd_core.config.node import Node, parse
from kd_core.experiment.spec import RANDOM

SHAPES = {
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "stl10": (96, 10),
    "tiny_imagenet": (64, 200),
    "imagenet": (224, 1000),
}
"""Image size and number of classes of the data sets that a dry run replaces."""

KEPT = ("batch_size", "mean", "std", "augment", "copies", "random_labels", "balanced")
"""Keys that a stand-in takes from the data set's node."""


def model_stand_in(model: Node) -> Node:
    """Return a model that starts with random weights, unless its weights are in a file.

    For the teachers, see `build_teachers`.
    """
    return model.changed(weights=model.get("weights") or RANDOM)


def data_stand_in(node: Node) -> Node:
    """Return random images of the size and number of classes of a known data set."""
    module, _, name = str(node["type"]).rpartition(".")
    if module != "kd_cls.data" or name not in SHAPES:
        return node
    image_size, num_classes = SHAPES[name]
    written: dict[str, Any] = {
        "type": "kd_cls.data.synthetic",
        "image_size": node.get("image_size", image_size),
        "num_classes": num_classes,
        **{key: node[key] for key in KEPT if key in node},
    }
    return parse(written, node.where, provided=("data_seed",))
