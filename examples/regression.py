"""A number an image, not a class: a teacher of numbers, a student, your own loop."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core import Criterion, Distiller, Term
from kd_core.criteria import RKD
from kd_core.functional import mse
from kd_core.networks.image_task import ImageTask
from kd_core.networks.task import Batch
from torch import Tensor, nn


class Regressor(ImageTask):
    """Learns `label`, a float [N], by the squared error."""

    def forward(self, batch: Batch) -> dict[str, Tensor] | Tensor:
        """Return the loss in training, else the numbers."""
        number = self.network(self.prepare(batch["image"])).squeeze(1)
        return {"mse": F.mse_loss(number, batch["label"])} if self.training else number

    def run_for_taps(self, batch: Batch) -> None:
        """Run without labels, where only the teacher is learned from (`task_weight=0`)."""
        self.network(self.prepare(batch["image"]))


class SameNumbers(Criterion):
    """The squared error between what student and teacher say."""

    takes = "vectors"

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of numbers [N, 1]."""
        return mse(student, teacher.detach())


def network(width: int) -> nn.Sequential:
    """Return a small network; its layer 4 gives the pooled vector."""
    layers = nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1))


def draw(count: int) -> Batch:
    """Return squares of some size on noise, and the size of each."""
    size = torch.randint(2, 13, (count,))
    place = torch.arange(16)
    inside = (place < size[:, None])[:, None, :, None] & (place < size[:, None])[:, None, None]
    image = 0.3 * torch.rand(count, 3, 16, 16) + 0.7 * inside
    return {"image": image, "label": size.float() / 12}


def train(model: Distiller, steps: int, labels: bool = True) -> None:
    """Train for some steps, on batches with or without labels."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        batch = draw(32)
        losses = model.train()(batch if labels else {"image": batch["image"]})
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()


def error(model: Distiller) -> float:
    """Return the mean absolute error on new images."""
    batch = draw(256)
    with torch.no_grad():
        return float((model.eval()(batch) - batch["label"]).abs().mean())


teacher, student = Regressor(network(32)), Regressor(network(4))
alone = Distiller(teacher, {}, {})
train(alone, 100)
terms = {
    "same": Term(SameNumbers()),
    "relations": Term(RKD(), student="4", teacher="4", weight=0.01),
}
distiller = Distiller(student, teacher, terms, task_weight=0)
before = error(distiller)
train(distiller, 100, labels=False)
print(f"teacher {error(alone):.3f}, student {before:.3f} before, {error(distiller):.3f} after")
