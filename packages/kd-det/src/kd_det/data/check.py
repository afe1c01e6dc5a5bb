"""Check a whole data set in the COCO format for entries that a detector cannot learn from."""

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image
from kd_core.errors import UserError
from kd_core.experiment.data_report import check_workers, print_report, read_all
from kd_core.files.checkpoint import save_json
from kd_core.runtime.console import out
from rich.table import Table

from kd_det.data.register import read_coco

UNUSABLE = {
    "missing_files": "missing files",
    "unreadable_files": "files that cannot be decoded",
    "wrong_sizes": "images of another size than the JSON says",
    "empty_boxes": "boxes without width or height",
    "boxes_outside": "boxes that reach outside their image",
}
"""Parts of the report that make a data set unusable, with their titles."""

_TOLERANCE = 1.0  # pixels that a box may reach outside: COCO's boxes are rounded


def run(args: Namespace) -> int:
    """Print the report of `check`; returns the exit status: 1 if anything is unusable."""
    report = check(args.json, args.images, workers=args.workers)
    if args.out:
        save_json(report, Path(args.out), sealed=False)
    out.print(_categories_table(report["categories"]))
    counts = ("images", "images_without_boxes", "boxes", "crowd_boxes")
    print_report(report, {key.replace("_", " "): report[key] for key in counts}, UNUSABLE)
    return int(not report["usable"])


def check(json_file: str | Path, image_root: str | Path, *, workers: int = 4) -> dict[str, Any]:
    """Return a report about a data set; every image is decoded as in training.

    Args:
        json_file: COCO's instances file.
        image_root: Folder that its `file_name`s start from.
        workers: Threads that decode images.

    Returns:
        Counts, the lists of `UNUSABLE`, and `usable`: whether all of these are empty. Boxes are
        named by their annotation's id.

    Raises:
        UserError: If the JSON is not a COCO instances file, or the folder is missing.
    """
    check_workers(workers)
    content, folder = read_coco(json_file), Path(image_root)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of images")
    report = {
        "json": str(json_file),
        "image_root": str(image_root),
        **_counts(content),
        **_boxes(content),
        **_files(content["images"], folder, workers),
    }
    report["usable"] = not any(report[key] for key in UNUSABLE)
    return report


def _counts(content: dict[str, Any]) -> dict[str, Any]:
    annotations, images = content["annotations"], content["images"]
    of_category = Counter(annotation["category_id"] for annotation in annotations)
    with_boxes = {annotation["image_id"] for annotation in annotations}
    return {
        "images": len(images),
        "boxes": len(annotations),
        "crowd_boxes": sum(bool(annotation["iscrowd"]) for annotation in annotations),
        "images_without_boxes": sum(image["id"] not in with_boxes for image in images),
        "categories": {
            category["name"]: of_category[category["id"]]
            for category in sorted(content["categories"], key=lambda category: category["id"])
        },
    }


def _boxes(content: dict[str, Any]) -> dict[str, list[int]]:
    images = {image["id"]: image for image in content["images"]}
    empty, outside = [], []
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        right, bottom = image["width"] + _TOLERANCE, image["height"] + _TOLERANCE
        if not (width > 0 and height > 0):
            empty.append(annotation["id"])
        elif min(x, y) < -_TOLERANCE or x + width > right or y + height > bottom:
            outside.append(annotation["id"])
    return {"empty_boxes": empty, "boxes_outside": outside}


def _files(images: Sequence[dict[str, Any]], folder: Path, workers: int) -> dict[str, Any]:
    """Decode all images; return the errors by file name."""
    found: dict[str, Any] = {"missing_files": [], "unreadable_files": {}, "wrong_sizes": {}}
    for image, (problem, text) in read_all(images, partial(_problem, folder), workers):
        if problem == "missing_files":
            found[problem].append(image["file_name"])
        elif problem:
            found[problem][image["file_name"]] = text
    return found


def _problem(folder: Path, image: dict[str, Any]) -> tuple[str, str]:
    """Return which part of the report an image belongs in, "" for none, and what is wrong."""
    file = folder / image["file_name"]
    if not file.is_file():
        return "missing_files", ""
    try:
        check_image_size(dict(image), read_image(str(file), "BGR"))
    except SizeMismatchError as error:
        return "wrong_sizes", str(error)
    except Exception as error:  # decoders raise many types
        return "unreadable_files", f"{type(error).__name__}: {error}"
    return "", ""


def _categories_table(categories: dict[str, int]) -> Table:
    table = Table("category", title="categories")
    table.add_column("boxes", justify="right")
    for name, count in categories.items():
        table.add_row(name, f"{count:,}")
    return table
