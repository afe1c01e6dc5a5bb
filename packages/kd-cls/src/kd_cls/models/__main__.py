"""Print the table of docs/models.md: python -m kd_cls.models."""

import inspect
from typing import cast

import torch

from kd_cls.models import MODELS, Taps

_PIXELS = {100: 32, 200: 64, 1000: 224}  # CIFAR-100, Tiny-ImageNet, ImageNet


def table() -> str:
    """Return the zoo as a Markdown table: sizes, with each network's usual classes, and taps."""
    rows = [
        "| name | parameters | classes | input | stages | pre-activation | pooled | BatchNorms |",
        "|---|---:|---:|---:|---|---|---|---|",
    ]
    return "\n".join([*rows, *(_row(name) for name in MODELS)])


def _row(name: str) -> str:
    classes = inspect.signature(MODELS[name]).parameters["num_classes"].default
    with torch.device("meta"):
        network = MODELS[name]()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    paths = cast(Taps, network.taps)
    stages = [f"`{path}` {width}" for path, width in zip(paths.stages, paths.channels, strict=True)]
    cells = [
        f"`{name}`",
        f"{parameters:,}",
        str(classes),
        str(_PIXELS[classes]),
        ", ".join(stages),
        _code(paths.preact or ()),
        f"`{paths.pooled}`",
        _code(paths.batchnorms),
    ]
    return f"| {' | '.join(cells)} |"


def _code(paths: tuple[str, ...]) -> str:
    return ", ".join(f"`{path}`" for path in paths) or "none"


if __name__ == "__main__":
    print(table())
