"""Check a whole data set in the COCO format for entries that a detector cannot learn from."""

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.experiment.data_report import check_workers, print_report, read_all
from kd_core.files.checkpoint import save_json
from kd_core.files.new_files import require_writable
from kd_core.runtime.console import out
from rich.table import Table

from kd_det.config import read_config
from kd_det.data.coco_file import read_coco
from kd_det.data.image_rules import image_problem
from kd_det.data.instance_rules import CUT, LEFT_OUT, REFUSED, Needs, images_left_out, problems

_FILES = {
    "missing_files": "missing files",
    "unreadable_files": "files that cannot be decoded",
    "wrong_sizes": "images of another size than the JSON says",
    "deep_images": "images of more than 8 bits a channel",
}
UNUSABLE = {
    **_FILES,
    **REFUSED,
    **{kind: f"{title} (left out in training)" for kind, title in LEFT_OUT.items()},
    **{kind: f"{title} (cut in training)" for kind, title in CUT.items()},
}
"""Parts of the report that make a data set unusable, with their titles.

Training refuses the others: at its start, or an image when it is read.
"""


_ALWAYS = (*_FILES, "empty_boxes", "boxes_outside")  # shown if there are none, too
_COUNTS = (
    "images",
    "images_without_boxes",
    "images_left_out_in_training",
    "boxes",
    "crowd_boxes",
    "masks",
    "keypoints",
)
_BOXES = Needs()


def run(args: Namespace) -> int:
    """Print the report of `check`; returns the exit status: 1 if anything is unusable."""
    if args.out:
        require_writable(Path(args.out).expanduser())
    cfg = read_config(args.config_file) if args.config_file else None
    needs = Needs.of(cfg, training=not args.evaluation) if cfg else Needs(evaluates=args.evaluation)
    report = check(args.json, args.images, needs, workers=args.workers)
    if args.out:
        save_json(report, Path(args.out).expanduser(), sealed=False)
    out.print(_categories_table(report["categories"]))
    counts = {key.replace("_", " "): report[key] for key in _COUNTS}
    shown = {k: title for k, title in UNUSABLE.items() if report[k] or k in _ALWAYS}
    print_report(report, counts, shown)
    return int(not report["usable"])


def check(
    json_file: str | Path, image_root: str | Path, needs: Needs = _BOXES, *, workers: int = 4
) -> dict[str, Any]:
    """Return a report about a data set; every image is decoded as in training.

    Args:
        json_file: COCO's instances file.
        image_root: Folder that its `file_name`s start from.
        needs: What the config wants of it; boxes alone by default.
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
        **_counts(content, needs),
        **dict.fromkeys(UNUSABLE, ()),
        **problems(content, folder, needs),
        **_files(content["images"], folder, workers),
    }
    report |= {kind: list(report[kind]) for kind in UNUSABLE if report[kind] == ()}
    report["usable"] = not any(report[key] for key in UNUSABLE)
    return report


def _counts(content: dict[str, Any], needs: Needs) -> dict[str, Any]:
    annotations, images = content["annotations"], content["images"]
    of_category = Counter(annotation["category_id"] for annotation in annotations)
    with_boxes = {annotation["image_id"] for annotation in annotations}
    return {
        "images": len(images),
        "boxes": len(annotations),
        "crowd_boxes": sum(bool(annotation["iscrowd"]) for annotation in annotations),
        "images_without_boxes": sum(image["id"] not in with_boxes for image in images),
        "images_left_out_in_training": images_left_out(content, needs),
        "masks": sum(bool(annotation.get("segmentation")) for annotation in annotations),
        "keypoints": sum(bool(annotation.get("keypoints")) for annotation in annotations),
        "categories": {
            category["name"]: of_category[category["id"]]
            for category in sorted(content["categories"], key=lambda category: category["id"])
        },
    }


def _files(images: Sequence[dict[str, Any]], folder: Path, workers: int) -> dict[str, Any]:
    """Decode all images; return the errors by file name."""
    found: dict[str, Any] = {kind: {} for kind in _FILES} | {"missing_files": []}
    read = partial(_problem, folder)
    for image, (problem, text) in read_all(images, read, workers):
        if problem == "missing_files":
            found[problem].append(image["file_name"])
        elif problem:
            found[problem][image["file_name"]] = text
    return found


def _problem(folder: Path, image: dict[str, Any]) -> tuple[str, str]:
    """Return which part of the report an image belongs in, "" for none, and what is wrong."""
    return image_problem(folder / image["file_name"], image)


def _categories_table(categories: dict[str, int]) -> Table:
    table = Table("category", title="categories")
    table.add_column("boxes", justify="right")
    for name, count in categories.items():
        table.add_row(name, f"{count:,}")
    return table
