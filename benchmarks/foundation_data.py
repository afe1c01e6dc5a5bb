"""Images of `benchmarks/foundation.py`: CIFAR-10, ELPV, or drawn ones, as folders of classes.

Each has `train/<class>/` and `test/<class>/`. Distillation reads `train` without its classes.
"""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from kd_cls.probes import few_of_each_class
from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_folder
from PIL import Image
from real_teachers import folder_of

DEFECT = 0.5
"""ELPV's labels are probabilities of a defect, 0, 1/3, 2/3 or 1; above this a cell has one."""


def cifar10(folder: Path, train: int, test: int) -> None:
    """Write images of each class of `KD_DATA`'s CIFAR-10, the first of each part."""
    root = Path(os.environ.get("KD_DATA", ""), "cifar10_jpeg")
    if "KD_DATA" not in os.environ or not root.is_dir():
        raise UserError("KD_DATA must name a folder with cifar10_jpeg, or use --tiny")
    with atomic_folder(folder) as made:
        for part, most in (("train", train), ("test", test)):
            with np.load(root / f"{part}.npz", allow_pickle=False) as archive:
                data, offset, label = archive["jpeg"], archive["offset"], archive["label"]
                classes = archive["classes"]
            for index in _first_of_each(label, most):
                content = data[offset[index] : offset[index + 1]].tobytes()
                _put(made / part / str(classes[label[index]]), f"{index:05d}.jpg", content)


def elpv(folder: Path, train: int | None, test: int) -> None:
    """Write ELPV's photos; `test` of each class, drawn once, are the test part."""
    root = folder_of("elpv_dataset") / "data"
    rows = np.genfromtxt(root / "labels.csv", dtype=[("path", "U32"), ("p", "f8"), ("t", "U8")])
    label = (rows["p"] > DEFECT).astype(int)
    tests = set(few_of_each_class(torch.from_numpy(label), test, 0).tolist())
    with atomic_folder(folder) as made:
        for part, numbers in (
            ("test", tests),
            ("train", [n for n in range(len(rows)) if n not in tests]),
        ):
            chosen = np.array(sorted(numbers))
            for place in _first_of_each(label[chosen], train if part == "train" else None):
                row = rows[chosen[place]]
                name = ("sound", "defect")[label[chosen[place]]]
                _put(made / part / name, Path(row["path"]).name, (root / row["path"]).read_bytes())


def drawn(folder: Path, train: int, test: int, classes: int) -> None:
    """Write images of stripes, whose direction is the class."""
    bits = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    with atomic_folder(folder) as made:
        for part, most in (("train", train), ("test", test)):
            for number in range(most * classes):
                angle = np.pi * (number % classes) / classes
                wave = np.sin(25 * (x * np.cos(angle) + y * np.sin(angle)) + 6 * bits.random())
                noise = 20 * bits.standard_normal((32, 32, 3))
                pixels = np.clip(128 + 90 * wave[..., None] + noise, 0, 255).astype(np.uint8)
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG")
                _put(
                    made / part / f"class{number % classes}",
                    f"{number:05d}.png",
                    content.getvalue(),
                )


def few(source: Path, folder: Path, shots: int, seed: int) -> None:
    """Write a set with as many labelled training images of each class; the test part is the same.

    They are those that `few_of_each_class` draws, in the order of the class folders, as the
    probes of the same number and seed take them.
    """
    files = sorted((source / "train").glob("*/*"))
    classes = sorted({path.parent.name for path in files})
    labels = torch.tensor([classes.index(path.parent.name) for path in files])
    with atomic_folder(folder) as made:
        for place in few_of_each_class(labels, shots, seed).tolist():
            file = files[place]
            _put(made / "train" / file.parent.name, file.name, file.read_bytes())
        shutil.copytree(source / "test", made / "test")


def _first_of_each(label: np.ndarray, most: int | None) -> list[int]:
    seen: dict[int, int] = {}
    chosen = []
    for index, name in enumerate(label.tolist()):
        seen[name] = seen.get(name, 0) + 1
        if most is None or seen[name] <= most:
            chosen.append(index)
    return chosen


def _put(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
