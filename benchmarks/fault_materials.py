"""What the campaign's runs are fed: configs, and drawn images, people and shapes."""

from pathlib import Path

import numpy as np
import torch
from fault_runs import CONFIGS
from kd_cls.models import build_model
from kd_det.synthetic.shapes import shapes
from kd_reid.synthetic.people import synthetic_people
from PIL import Image


def make(folder: Path) -> int:
    """Write everything into a new folder; return the exit status."""
    folder.mkdir()
    for name, text in CONFIGS.items():
        (folder / f"{name}.py").write_text(text)
    torch.manual_seed(0)
    torch.save(build_model("resnet8", num_classes=3).state_dict(), folder / "teacher.pth")
    draw_classes(folder / "images")
    few = {"num_train_ids": 5, "num_test_ids": 4, "num_cameras": 2, "images_per_camera": 4}
    synthetic_people(folder / "people", image_height=32, **few)
    shapes(folder / "shapes", num_train=12, num_few=2, num_val=4, image_size=64)
    return 0


def draw_classes(folder: Path) -> None:
    """Draw three classes of twelve images each for training, four for testing."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 12, "test": 4}.items():
        for label in range(3):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 200, (32, 32, 3), dtype=np.uint8)
                pixels[..., label] = 230
                Image.fromarray(pixels).save(place / f"{number}.png")
