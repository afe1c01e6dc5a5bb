"""A generated data set of shapes in the COCO format, for demo, tests and experiments."""

from pathlib import Path
from typing import Any

import numpy as np
from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_folder, load_json, save_json
from kd_core.files.workdir import cache_folder
from kd_core.runtime.console import err
from PIL import Image
from rich.progress import track

from kd_det.data.register import register_coco
from kd_det.synthetic.scenes import OUTLINES, Shape, draw_scene

_VERSION = 1  # of the drawings; part of the folder's name
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

    `few.json` has the first training images only, for a student with few labels.

    The set is drawn (some seconds) unless it exists; it is whole or absent. An image depends only
    on its split, its number, `image_size` and `seed`.

    Args:
        folder: Folder of the set; None takes a folder named by the other arguments, in `$KD_CACHE`
            or else in `~/.cache/kd`.
        num_train: Training images.
        num_few: How many of them `few.json` has.
        num_val: Validation images.
        image_size: Side of the images in pixels.
        seed: Seed of all images.

    Raises:
        UserError: If a number is not positive, or the folder has other contents.
    """
    if min(num_few, num_val) < 1 or num_few > num_train or image_size < 32:
        raise UserError(
            "shapes: wanted 1 <= num_few <= num_train, 1 <= num_val and 32 pixels a side, got "
            f"{num_train=}, {num_few=}, {num_val=}, {image_size=}"
        )
    settings = {
        "version": _VERSION,
        "num_train": num_train,
        "num_few": num_few,
        "num_val": num_val,
        "image_size": image_size,
        "seed": seed,
    }
    name = "_".join(["shapes", *map(str, settings.values())])
    folder = cache_folder() / name if folder is None else Path(folder)
    if not folder.exists():
        _write(folder, settings)
    _check(folder, settings)
    return folder


def register_shapes(folder: str | Path | None = None, **settings: int) -> None:
    """Draw `shapes` and register `shapes_train`, `shapes_few` and `shapes_val`."""
    made = shapes(folder, **settings)
    for part, split in (("train", "train"), ("few", "train"), ("val", "val")):
        register_coco(f"shapes_{part}", made / f"{part}.json", made / split)


def _write(folder: Path, settings: dict[str, int]) -> None:
    with atomic_folder(folder) as new:
        train, val = (_draw(new / split, split, settings) for split in _SPLITS)
        for part, images in (("train", train), ("few", train[: settings["num_few"]]), ("val", val)):
            save_json(_coco(images, settings), new / f"{part}.json", sealed=False)


def _draw(folder: Path, split: str, settings: dict[str, int]) -> list[list[Shape]]:
    """Draw the images of a split into a new folder; return the shapes of each."""
    folder.mkdir()
    found = []
    numbers = range(settings[f"num_{split}"])
    for number in track(numbers, f"shapes: {split}", console=err, transient=True):
        rng = np.random.default_rng([settings["seed"], _SPLITS.index(split), number])
        pixels, shapes = draw_scene(rng, settings["image_size"])
        Image.fromarray(pixels).save(folder / _file_name(number), quality=90)
        found.append(shapes)
    return found


def _file_name(number: int) -> str:
    return f"{number:06}.jpg"


def _coco(images: list[list[Shape]], settings: dict[str, int]) -> dict[str, Any]:
    """Return the content of COCO's file, which counts from 1, for images with these shapes."""
    size = {"height": settings["image_size"], "width": settings["image_size"]}
    annotations = [
        {"image_id": number + 1, **_annotation(shape)}
        for number, shapes in enumerate(images)
        for shape in shapes
    ]
    return {
        "info": settings,
        "images": [
            {"id": number + 1, "file_name": _file_name(number), **size}
            for number in range(len(images))
        ],
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(OUTLINES, 1)],
    }


def _annotation(shape: Shape) -> dict[str, Any]:
    """Return COCO's annotation of a shape: category, box, area and polygon."""
    corners = shape.corners.round(2)
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    x, y = corners.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2  # the shoelace formula
    return {
        "category_id": list(OUTLINES).index(shape.category) + 1,
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "area": round(float(area), 2),
        "iscrowd": 0,
        "segmentation": [corners.flatten().tolist()],
    }


def _check(folder: Path, settings: dict[str, int]) -> None:
    """Reject a folder with missing files, other settings or other contents."""
    few = folder / "few.json"
    came = "no few.json"
    if few.is_file():
        remedy = "move the folder elsewhere, and it is drawn again"
        came = load_json(few, remedy=remedy, unsealed=True).get("info", came)
    if came != settings:
        raise UserError(f"{folder}: wanted shapes of {settings}, got {came}; name another folder")
    for split in _SPLITS:
        count, found = settings[f"num_{split}"], len(list((folder / split).glob("*.jpg")))
        if found != count or not (folder / f"{split}.json").is_file():
            raise UserError(
                f"{folder}: wanted {split}.json and {count} images in {split}/, found {found}; "
                "move the folder elsewhere, and it is drawn again"
            )
