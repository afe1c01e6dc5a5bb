"""Stand-ins for data that is not there, so that a dry run needs no download."""

from typing import Any

SHAPES = {
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "stl10": (96, 10),
    "tiny_imagenet": (64, 200),
    "imagenet": (224, 1000),
}
"""Image size and number of classes of the data sets that a config may name without having them."""


def with_synthetic_data(config: dict[str, Any]) -> dict[str, Any]:
    """Replace a known data set by random images of its size and number of classes."""
    node = config["data"]
    module, _, name = str(node["type"]).rpartition(".")
    if module != "kd_cls.data" or name not in SHAPES:
        return config
    image_size, num_classes = SHAPES[name]
    stand_in = {
        "type": "kd_cls.data.synthetic",
        "image_size": node.get("image_size", image_size),
        "num_classes": num_classes,
        **{key: node[key] for key in ("batch_size", "mean", "std") if key in node},
    }
    return {**config, "data": stand_in}
