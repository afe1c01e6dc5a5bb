"""What the prediction tool does: boxes on pictures, and a line of JSON for each."""

import json
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances
from kd_core.data.image_listing import LeftOut, list_images
from kd_core.errors import UserError
from kd_core.experiment.tables.latencies import measure_and_show
from kd_core.files.checkpoint import atomic_path
from kd_core.files.workdir import named_folder
from kd_core.networks.latency import Plan
from kd_core.runtime.console import err, out
from pycocotools import mask as coco_masks
from rich.table import Table
from rich.text import Text

from kd_det.data.register import parse_set, register_coco
from kd_det.deploy.deployment import timed
from kd_det.deploy.detecting import Detecting, detect, load_detecting
from kd_det.deploy.scaling import read_picture, to_input
from kd_det.pictures import draw_detections, predicted_boxes

FILE = "predictions.jsonl"
_FOLDER = "predictions"


def run(args: Namespace, plan: Plan | None) -> int:
    """Predict as the arguments say; returns the exit status: 1 if a picture cannot be read."""
    for text in args.register:
        register_coco(*parse_set(text))
    files = pictures_of(args.images)
    folder = _free_folder(args.output)
    threads = None if plan is None else plan.thread_count
    detecting = load_detecting(Path(args.student).expanduser(), args.weights, args.opts, threads)
    if args.threshold < detecting.score_threshold:
        raise UserError(
            f"--threshold {args.threshold:g}: the detector itself leaves out what is below "
            f"{detecting.score_threshold:g}; lower its SCORE_THRESH_TEST with --opts, and export "
            "it again where it is a file"
        )
    damaged, measured = 0, plan is None
    table = Table("picture", "objects", "best")
    with atomic_path(folder / FILE) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for file, place in zip(files, places_of(files), strict=True):
            with _explained(file) as failed:
                pixels = read_picture(file, detecting.scaling)
            if failed:
                damaged += 1
                continue
            found = detect(detecting, pixels, args.threshold)
            line = described(file, pixels, found, detecting)
            lines.write(json.dumps(line) + "\n")
            _draw(pixels, found, detecting, folder / place)
            _show(table, line, as_json=args.json)
            if plan is not None and not measured:
                measured = True
                _measure(detecting, pixels, plan)
    if not args.json:
        out.print(table)
    err.print(f"{folder}: {len(files) - damaged} pictures with boxes, and {FILE}")
    return int(damaged > 0)


def pictures_of(given: Sequence[str]) -> list[str]:
    """Return the image files that are given, or are below a folder that is; each once.

    Raises:
        UserError: If a folder has none.
    """
    found: dict[str, str] = {}
    for text in given:
        files = [text]
        if os.path.isdir(os.path.expanduser(text)):
            left_out = LeftOut()
            files = list_images(os.path.expanduser(text), left_out)
            left_out.print(text)
            if not files:
                raise UserError(f"{text}: has no images")
        for file in files:
            file = os.path.expanduser(file)
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def places_of(files: Sequence[str]) -> list[Path]:
    """Return where the picture of each file is written, below the output folder.

    The folders below those that all files have in common are kept, and the whole name with its
    ending. So no two files have one place.
    """
    whole = [os.path.abspath(file) for file in files]
    above = os.path.commonpath([os.path.dirname(file) for file in whole])
    return [Path(os.path.relpath(file, above) + ".png") for file in whole]


def described(
    file: str, pixels: np.ndarray, found: Instances, detecting: Detecting
) -> dict[str, Any]:
    """Return what was found in a picture, in JSON's types; boxes and masks as in COCO's results."""
    classes = found.pred_classes.tolist()
    names, ids = detecting.categories
    _require_known(classes, len(names))
    corners = found.pred_boxes.tensor.double()
    sides = corners[:, 2:] - corners[:, :2]
    boxes = [
        [round(v, 2) for v in (*a, *b)]
        for a, b in zip(corners[:, :2].tolist(), sides.tolist(), strict=True)
    ]
    line: dict[str, Any] = {
        "file": file,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "boxes": boxes,
        "scores": [round(score, 5) for score in found.scores.tolist()],
        "categories": [names[number] for number in classes],
        "category_ids": [ids[number] for number in classes],
    }
    if found.has("pred_masks"):
        masks = np.asfortranarray(found.pred_masks.numpy().transpose(1, 2, 0).astype(np.uint8))
        line["masks"] = [
            {"size": one["size"], "counts": one["counts"].decode()}
            for one in coco_masks.encode(masks)
        ]
    if found.has("pred_keypoints"):
        line["keypoints"] = found.pred_keypoints.flatten(1).tolist()
    return line


def _require_known(classes: Sequence[int], count: int) -> None:
    if wrong := [number for number in classes if not 0 <= number < count]:
        raise UserError(f"class {wrong[0]} was found, but there are {count} categories")


def _draw(pixels: np.ndarray, found: Instances, detecting: Detecting, path: Path) -> None:
    boxes = predicted_boxes(found, min_score=0.0)
    masks = found.pred_masks.numpy() if found.has("pred_masks") else None
    draw_detections(pixels, boxes, path, detecting.categories.names, masks=masks)


def _show(table: Table, line: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(line), flush=True)
        return
    best = f"{line['categories'][0]} {line['scores'][0]:.2f}" if line["scores"] else ""
    table.add_row(Text(line["file"], overflow="fold"), str(len(line["boxes"])), Text(best))


def _measure(detecting: Detecting, pixels: np.ndarray, plan: Plan) -> None:
    image, _ = to_input(pixels, detecting.scaling)
    measure_and_show(timed({detecting.runtime: detecting.run}, image), plan)


def _free_folder(given: str | None) -> Path:
    """Return a folder without files: that which is given, or else a new one."""
    if given is None:
        names = (_FOLDER, *(f"{_FOLDER}-{number}" for number in range(2, 10_000)))
        return next(Path(name) for name in names if not Path(name).exists())
    folder = named_folder(given, "--output").expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output {given}: there are files already; name a folder without any")
    return folder


@contextmanager
def _explained(file: str) -> Iterator[list[str]]:
    """Print an error of one file, and put it into the list, so that the others are done."""
    failed: list[str] = []
    try:
        yield failed
    except UserError as error:
        err.print(f"left out: {error}")
        failed.append(file)
