"""A generated data set of shapes in the COCO format: for the demo, for tests, for trying things."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from kd_core.checkpoint import save_json
from kd_core.console import err
from kd_core.errors import UserError
from PIL import Image
from rich.progress import track

from kd_det.data.register import register_coco
from kd_det.data.scenes import OUTLINES, Shape, draw_scene

_VERSION = 1  # of what is drawn; part of the folder's name
_SPLITS = ("train", "val")


def shapes(
    folder: str | Path | None = None,
    *,
    num_train: int = 1000,
    num_few: int = 100,
    num_val: int = 200,
    image_size: int = 128,
    seed: int = 0,
) -> Path:
    """Return a folder of shapes on noisy backgrounds: `train.json`, `train/`, `val.json`, `val/`.

    `few.json` is of the first training images only, for a student that has few labels.

    It is drawn (some seconds) unless it is there already, and is whole or absent. An image depends
    on its split, its number, `image_size` and `seed` alone.

    Args:
        folder: Where the set is; None takes a folder that is named by the other arguments, in
            `$KD_CACHE` or else in `~/.cache/kd`.
        num_train: Training images.
        num_few: How many of them `few.json` has.
        num_val: Validation images.
        image_size: Side of the images in pixels.
        seed: Seed of all images.

    Raises:
        UserError: If a number is not positive, or the folder holds something else.
    """
    counts = dict(zip(_SPLITS, (num_train, num_val), strict=True))
    if min(num_few, num_val) < 1 or num_few > num_train or image_size < 32:
        raise UserError(
            "shapes: wanted 1 <= num_few <= num_train, 1 <= num_val and 32 pixels a side, got "
            f"{num_train=}, {num_few=}, {num_val=}, {image_size=}"
        )
    name = f"shapes{_VERSION}_{num_train}_{num_few}_{num_val}_{image_size}_seed{seed}"
    folder = cache_folder() / name if folder is None else Path(folder)
    if not folder.exists():
        _write(folder, counts, image_size, seed)
    _check(folder, counts, name)
    return folder


def register_shapes(folder: str | Path | None = None, **settings: int) -> None:
    """Draw `shapes` and register its splits as `shapes_train` and `shapes_val`."""
    made = shapes(folder, **settings)
    for split in _SPLITS:
        register_coco(f"shapes_{split}", made / f"{split}.json", made / split)


def cache_folder() -> Path:
    """Return where generated data is kept: `$KD_CACHE`, or else `~/.cache/kd`."""
    return Path(os.environ.get("KD_CACHE") or "~/.cache/kd").expanduser()


def _write(folder: Path, counts: dict[str, int], image_size: int, seed: int) -> None:
    """Draw all in a folder beside it, which takes its place when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for split in _SPLITS:
            _write_split(temporary, split, counts[split], image_size, seed)
        temporary.chmod(0o755)  # mkdtemp's folder is its owner's alone
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_split(folder: Path, split: str, count: int, image_size: int, seed: int) -> None:
    (folder / split).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    numbers = track(range(1, count + 1), f"shapes: {split}", console=err, transient=True)
    for number in numbers:
        rng = np.random.default_rng([seed, _SPLITS.index(split), number])
        pixels, found = draw_scene(rng, image_size)
        name, size = f"{number:06}.jpg", {"height": image_size, "width": image_size}
        Image.fromarray(pixels).save(folder / split / name, quality=90)
        images.append({"id": number, "file_name": name, **size})
        for shape in found:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **_coco(shape)})
    categories = [{"id": _number(name), "name": name} for name in OUTLINES]
    content = {"images": images, "annotations": annotations, "categories": categories}
    save_json(content, folder / f"{split}.json")


def _coco(shape: Shape) -> dict[str, Any]:
    """Return what COCO says about a shape: category, box, area and polygon."""
    corners = shape.corners.round(2)
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    x, y = corners.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2  # the shoelace formula
    return {
        "category_id": _number(shape.category),
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "area": round(float(area), 2),
        "iscrowd": 0,
        "segmentation": [corners.flatten().tolist()],
    }


def _number(category: str) -> int:
    return list(OUTLINES).index(category) + 1  # COCO counts from 1


def _check(folder: Path, counts: dict[str, int], name: str) -> None:
    """Refuse a folder that lost files, or that holds anything else."""
    for split, count in counts.items():
        found = len(list((folder / split).glob("*.jpg")))
        if found != count or not (folder / f"{split}.json").is_file():
            raise UserError(
                f"{folder}: wanted {split}.json and the {count} images of {name} in {split}/, "
                f"found {found}; delete the folder, or name another one"
            )
