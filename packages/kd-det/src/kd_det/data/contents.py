"""What the data sets of a config hold, checked before training or evaluation starts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from kd_core.errors import UserError
from kd_core.files.mismatch import few
from kd_core.runtime.console import err
from kd_core.runtime.paths import nearest_path

from kd_det.data.coco_file import read_coco
from kd_det.data.image_rules import is_url, missing_images
from kd_det.data.instance_rules import CUT, LEFT_OUT, REFUSED, Found, Needs, problems

_SHOWN = 5
_COCO = ("coco", "coco_panoptic_seg")  # evaluators of sets that are read from an instances file


def check_contents(cfg: CfgNode, train: Sequence[str]) -> None:
    """Reject data sets that training or evaluation would fail on, or misread; say what is left out.

    Sets that are not read from COCO files are not checked here.

    Args:
        cfg: Its data sets are registered.
        train: The data sets to be trained on.

    Raises:
        UserError: Names the set, what is wrong, and how often.
    """
    contents: dict[str, Mapping[str, Any]] = {}
    passed: dict[str, str] = {}
    empty: list[str] = []
    uses = [(name, True) for name in train] + [(name, False) for name in cfg.DATASETS.TEST]
    for name, training in uses:
        meta = MetadataCatalog.get(name)
        file, root = meta.get("json_file"), meta.get("image_root")
        if not file or not root or meta.get("evaluator_type") not in _COCO:
            continue
        if file not in contents:
            contents[file] = read_coco(file)
            _check_files(name, Path(root), contents[file])
        found = problems(contents[file], Path(root), Needs.of(cfg, training=training))
        if training and contents[file]["images"] and found.pop("nothing_to_learn", None):
            empty.append(name)
        _refuse(name, file, root, found)
        passed |= {name: text} if training and (text := _passed_over(found)) else {}
    if empty and len(empty) == len(train):
        raise UserError(
            f"data set {empty[0]!r}: no image has an object that training uses: none, or crowds "
            "alone, boxes without size or outside their images, or no visible keypoints; "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS False keeps them"
        )
    for name, text in passed.items():
        err.print(f"data set {name!r}: {text}")


def _check_files(name: str, root: Path, content: Mapping[str, Any]) -> None:
    if is_url(str(root)):
        return
    if not root.is_dir():
        raise UserError(
            f"data set {name!r}: no folder of images {root}{nearest_path(root.absolute())}"
        )
    if missing := missing_images(root, [image["file_name"] for image in content["images"]]):
        raise UserError(
            f"data set {name!r}: {len(missing)} of {len(content['images'])} images are not in "
            f"{root}: {few(missing)}; get them, or remove their entries"
        )


def _refuse(name: str, file: str, root: str, found: Found) -> None:
    for kind, title in REFUSED.items():
        if ids := found.get(kind):
            raise UserError(
                f"data set {name!r}: {title}: {_listed(ids)}; repair or remove them "
                f"(tools/det_check.py {file} {root} lists all)"
            )


def _passed_over(found: Found) -> str:
    """Return in one line what Detectron2 passes over, "" if there is nothing."""
    said = [
        f"{title}, {effect}: {_listed(found[kind])}"
        for kinds, effect in ((LEFT_OUT, "which are left out"), (CUT, "which are cut"))
        for kind, title in kinds.items()
        if found.get(kind)
    ]
    return "; ".join(said)


def _listed(ids: Sequence[Any]) -> str:
    return f"{len(ids)} ({few([str(one) for one in ids], _SHOWN)})"
