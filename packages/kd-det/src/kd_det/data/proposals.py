"""Read proposal files, `DATASETS.PROPOSAL_FILES_*`, without running code in them."""

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import build
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from kd_core.errors import UserError
from kd_core.files.pickles import arrays_only
from kd_core.runtime.paths import nearest_path

_NAMES = ("ids", "boxes", "objectness_logits")
_OLD_NAMES = {"indexes": "ids", "scores": "objectness_logits"}  # of Detectron 1
_load = build.load_proposals_into_dataset

Records = list[dict[str, Any]]


def load_proposals(records: Records, file: str) -> Records:
    """Add the proposals of a file to the records of a data set, as Detectron2 does.

    Detectron2 unpickles any content of such a file; this reads only arrays and plain values.

    Args:
        records: Of the images, in Detectron2's form.
        file: A pickled dict of `ids`, `boxes` and `objectness_logits`.

    Raises:
        UserError: If the file contains anything else, or lacks an image.
    """
    with arrays_only(build):
        with PathManager.open(file, "rb") as opened:
            _check(build.pickle.load(opened), file, records)
        return _load(records, file)


def check_files(cfg: CfgNode, *, training: bool) -> None:
    """Reject a detector without an RPN that has no proposal files, or too few.

    Args:
        cfg: A config.
        training: Whether the training data sets are read too.

    Raises:
        UserError: If `MODEL.LOAD_PROPOSALS` is not set, or a data set has no file.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals":
            raise UserError(
                "MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals, but no proposals are read; "
                "set MODEL.LOAD_PROPOSALS True and DATASETS.PROPOSAL_FILES_TRAIN and _TEST"
            )
        return
    for split in ("TRAIN", "TEST") if training else ("TEST",):
        sets, files = cfg.DATASETS[split], cfg.DATASETS[f"PROPOSAL_FILES_{split}"]
        if len(sets) != len(files):
            raise UserError(
                f"DATASETS.PROPOSAL_FILES_{split} has {len(files)} files for {len(sets)} data "
                f"sets in DATASETS.{split}; MODEL.LOAD_PROPOSALS needs one for each"
            )


def require_files(cfg: CfgNode, *, training: bool) -> None:
    """Reject proposal files that do not exist; see `check_files`."""
    for split in ("TRAIN", "TEST") if training else ("TEST",):
        for file in cfg.DATASETS[f"PROPOSAL_FILES_{split}"] if cfg.MODEL.LOAD_PROPOSALS else ():
            if not PathManager.isfile(file):
                raise UserError(
                    f"DATASETS.PROPOSAL_FILES_{split}: there is no file {file}"
                    f"{nearest_path(Path(file).absolute())}"
                )


def read_proposals_safely() -> None:
    """Let all of Detectron2 read proposals with `load_proposals`."""
    build.load_proposals_into_dataset = load_proposals


def _check(contents: Any, file: str, records: Records) -> None:
    found = _lists(contents, file)
    ids, boxes, scores = (found[name] for name in _NAMES)
    for image, these, values in zip(ids, boxes, scores, strict=True):
        if not _fit(these, values):
            raise UserError(f"{file}: image {image!r:.40}: wanted arrays, boxes [N, 4], scores [N]")
    if found.get("bbox_mode", 0) not in list(BoxMode):
        raise UserError(f"{file}: bbox_mode {found['bbox_mode']!r:.40} is not one of Detectron2's")
    known = {str(image) for image in ids}
    for record in records:
        if str(record["image_id"]) not in known:
            raise UserError(f"{file}: has no proposals of image {record['image_id']!r}")


def _lists(contents: Any, file: str) -> dict[str, Any]:
    """Return the contents by today's names; the lists have an entry for each image."""
    found = contents if isinstance(contents, dict) else {}
    found = {_OLD_NAMES.get(str(name), str(name)): value for name, value in found.items()}
    if not all(isinstance(found.get(name), list | tuple) for name in _NAMES):
        raise UserError(f"{file}: wanted a dict with lists {', '.join(_NAMES)}, one entry an image")
    ids, boxes, scores = (len(found[name]) for name in _NAMES)
    if not ids == boxes == scores:
        raise UserError(f"{file}: {ids} ids, {boxes} boxes, {scores} scores: differ")
    return found


def _fit(boxes: Any, scores: Any) -> bool:
    arrays = (boxes, scores)
    if not all(isinstance(array, np.ndarray) and array.dtype.kind in "fiu" for array in arrays):
        return False
    return boxes.ndim == 2 and boxes.shape == (len(boxes), 4) and scores.shape == (len(boxes),)
