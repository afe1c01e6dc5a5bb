"""A complete task of your own: find a bright spot. See docs/own_task.md.

python examples/own_task.py configs/examples/own_task.py
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.config.build import build_network
from kd_core.config.trust import build_from_file
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.loader_set import LoaderSet
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.command_line import TrainingTool
from kd_core.experiment.spec import Experiment
from kd_core.files.artifacts import NODE, find_student, read_facts
from kd_core.files.weights import load_weights
from kd_core.networks.image_task import ImageTask
from kd_core.networks.task import Batch
from kd_core.training.hooks import Evaluate
from torch import Tensor, nn


class Locator(ImageTask):
    """Wraps a network from images to a point (x, y) in [0, 1] with its squared error."""

    def forward(self, batch: Batch) -> Any:
        """Return the training loss by name, or points [N, 2]."""
        points = self.network(self.prepare(batch["image"]))
        return {"mse": F.mse_loss(points, batch["label"])} if self.training else points


@dataclass(kw_only=True)
class Spots(LoaderSet):
    """Loaders of training and test images, whose `label` is the point, float32 [N, 2]."""

    test: DeviceLoader
    num_classes: int = 2  # outputs of a network


def spots(*, count: int = 512, batch_size: int = 32, data_seed: int = 0) -> Spots:
    """Draw noisy images of 32 pixels with one bright spot each."""
    images, points = _draw(count + 128, torch.Generator().manual_seed(7))
    return Spots(
        train=DeviceLoader(
            images[:count], points[:count], batch_size=batch_size, shuffle=True, data_seed=data_seed
        ),
        test=DeviceLoader(images[count:], points[count:], batch_size=128),
    )


class MeanPosition(nn.Module):
    """From a map [N, 1, H, W] to the mean position (x, y) under its softmax, in [0, 1]."""

    def forward(self, heat: Tensor) -> Tensor:
        """Return points [N, 2]."""
        weight = heat.flatten(1).softmax(1).view_as(heat)[:, 0]
        places = (torch.arange(heat.shape[-1], device=heat.device) + 0.5) / heat.shape[-1]
        return torch.stack([(weight.sum(side) * places).sum(1) for side in (1, 2)], dim=1)


def network(width: int = 8, num_classes: int = 2) -> nn.Module:
    """Two convolutions, a map of where the spot may be, and its mean position."""
    assert num_classes == 2, "a point has two coordinates"
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, 1, 1), MeanPosition()),
    )


class Location(TaskAdapter):
    """Task adapter: builds and measures models, and loads them as teachers."""

    title = "Train or distil a network that finds a bright spot"
    metric = "within_2px"

    def build_model(
        self, data: Spots, where: str, /, *, network: Mapping[str, Any], weights: str | None = None
    ) -> Locator:
        """Build the model of a node `student` or `teacher`; these keywords are its keys."""
        built = build_network(network, f"{where}.network", num_classes=data.num_classes)
        if weights and weights != "random":
            load_weights(built, weights)
        return Locator(built)

    def load_finished(self, folder: Path, node: Mapping[str, Any]) -> Locator:
        """Read a teacher that was trained first; its file says which network it is."""
        file = find_student(folder)
        described = read_facts(file, {"network": NODE})["network"]
        built = build_from_file(described, str(file), (), num_classes=2)
        load_weights(built, file)
        return Locator(built).eval()

    def evaluators(self, experiment: Experiment, data: Spots) -> tuple[Evaluate, None]:
        """Return the evaluation on the test set; there is no validation set."""
        return partial(evaluate, data.test), None


@torch.no_grad()
def evaluate(loader: DeviceLoader, model: nn.Module) -> dict[str, float]:
    """Return the share of points that are within 2 pixels, in percent, and the mean distance."""
    batches = list(loader.epoch(0))
    distance = torch.cat([(model(b) - b["label"]).norm(dim=1) for b in batches]) * 32
    return {
        "within_2px": round(100 * (distance < 2).float().mean().item(), 4),
        "pixels": round(distance.mean().item(), 4),
    }


def _draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    points = torch.rand(count, 2, generator=generator) * 0.8 + 0.1
    pixels = (torch.arange(32) + 0.5) / 32
    squared = (pixels[None, None, :] - points[:, :1, None]) ** 2
    squared = squared + (pixels[None, :, None] - points[:, 1:, None]) ** 2
    spot = (-squared / 0.005).exp()
    noise = torch.rand(count, 3, 32, 32, generator=generator)
    return ((0.6 * spot[:, None] + 0.4 * noise) * 255).to(torch.uint8), points


if __name__ == "__main__":
    sys.exit(TrainingTool(Location()).main())
