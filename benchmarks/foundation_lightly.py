"""lightly-train's own distillation, of the same teacher into the same student, in its own process.

python benchmarks/foundation_lightly.py JOB.json

lightly-train is AGPL: nothing of it is copied here, and nothing of this project needs it. Only its
documented interface is used: `pretrain`, and models of your own with `forward_features`,
`forward_pool`, `feature_dim` and `get_model`. It keeps its own recipe (loss, optimizer, schedule,
augmentations, mixed images); only images, their size, batch size and epochs are those of the
other arms. Its versions 1 and 2 of the method take DINO alone; version 3, the default, any model.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import lightly_train
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_cls.models import build_model
from kd_core.files.weights import load_weights
from safetensors.torch import save_file
from timm import create_model
from torch import Tensor, nn


class Student(nn.Module):
    """A ResNet of the zoo in lightly-train's interface."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = build_model(name, num_classes=10)
        self.network.fc.requires_grad_(False)  # not used

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the last map."""
        net = self.network
        x = net.relu(net.bn1(net.conv1(x)))
        return {"features": net.layer3(net.layer2(net.layer1(x)))}

    def forward_pool(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the pooled map [N, D, 1, 1]."""
        return {"pooled_features": F.adaptive_avg_pool2d(x["features"], 1)}

    def feature_dim(self) -> int:
        """Return the width of the map."""
        return self.network.fc.in_features

    def get_model(self) -> nn.Module:
        """Return the plain network."""
        return self.network


class Teacher(nn.Module):
    """timm's network in lightly-train's interface, fed as it was trained."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()
        self.network = create_model(job["teacher"], num_classes=1000)
        if job["weights"]:
            load_weights(self.network, job["weights"])
        self.size, self.width = job["teacher_size"], self.network.num_features

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the last map of images in [0, 1]."""
        x = F.interpolate(x, size=self.size, mode="bilinear", antialias=True)
        return {"features": self.network.forward_features((x - 0.5) / 0.5)}

    def forward_pool(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the pooled map [N, D, 1, 1]."""
        return {"pooled_features": F.adaptive_avg_pool2d(x["features"], 1)}

    def feature_dim(self) -> int:
        """Return the width of the map."""
        return self.width

    def get_model(self) -> nn.Module:
        """Return the plain network."""
        return self.network


def main(job: dict[str, Any]) -> None:
    """Train, and write the student and the seconds that training took."""
    torch.manual_seed(job["seed"])
    student, start = Student(job["student"]), time.monotonic()
    lightly_train.pretrain(
        out=job["out"],
        data=job["images"],
        model=student,
        method="distillation",
        method_args={"teacher": Teacher(job)},
        epochs=job["epochs"],
        batch_size=job["batch_size"],
        seed=job["seed"],
        num_workers=0,
        accelerator="cpu",
        devices=1,
        precision="32-true",
        overwrite=True,
        loggers={"tensorboard": None},
        transform_args={
            "image_size": (job["image_size"],) * 2,
            "normalize": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        },
    )
    seconds = time.monotonic() - start
    save_file(student.network.state_dict(), job["product"])
    Path(job["result"]).write_text(
        json.dumps({"seconds": seconds, "version": lightly_train.__version__}), encoding="utf-8"
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
