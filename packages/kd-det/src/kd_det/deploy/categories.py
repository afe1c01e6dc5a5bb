"""What a detector calls its classes: kept beside a run, or known of its data sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from kd_core.errors import UserError
from kd_core.files.artifacts import NAMES
from kd_core.files.checkpoint import load_json, save_json

FILE = "categories.json"


class Categories(NamedTuple):
    """Names of a detector's classes, by number, and their ids in the data set."""

    names: list[str]
    ids: list[int]


def keep(cfg: CfgNode) -> None:
    """Write the categories of a run's data sets into its folder, if they are known."""
    if found := of_data(cfg):
        save(found, Path(cfg.OUTPUT_DIR))


def save(categories: Categories, folder: Path) -> None:
    """Write categories into the folder of a run."""
    save_json(categories._asdict(), folder / FILE)


def of_run(folder: Path) -> Categories | None:
    """Return what `keep` wrote; None if there is nothing.

    Raises:
        UserError: If the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    remedy = "move it elsewhere, and the classes are shown by number"
    return read_categories(f"{file}", load_json(file, remedy=remedy))


def of_data(cfg: CfgNode) -> Categories | None:
    """Return the categories of the first data set of a config that is registered here."""
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        meta = MetadataCatalog.get(name)
        if names := meta.get("thing_classes"):
            by_id = meta.get("thing_dataset_id_to_contiguous_id") or {}
            ids = sorted(by_id, key=lambda number: by_id[number])
            fitting = len(ids) == len(names) and all(isinstance(number, int) for number in ids)
            return Categories(list(names), ids if fitting else list(range(1, len(names) + 1)))
    return None


def numbered(count: int) -> Categories:
    """Return categories that are called by their number, from 0."""
    return Categories([str(number) for number in range(count)], list(range(count)))


def read_categories(where: str, found: Any) -> Categories:
    """Return categories that a file holds, a dict of `names` and `ids`.

    Raises:
        UserError: If it is not that.
    """
    given: dict[str, Any] = found if isinstance(found, dict) else {}
    names, ids = given.get("names"), given.get("ids", [])
    if names is None or not (NAMES[1](names) and _are_ids(ids) and len(ids) == len(names)):
        raise UserError(
            f"{where}: wanted `names`, {NAMES[0]}, and as many whole numbers as `ids`, each once; "
            f"got {found!r:.80}"
        )
    return Categories(names, ids)


def _are_ids(ids: Any) -> bool:
    def is_id(value: Any) -> bool:
        return type(value) is int

    return isinstance(ids, list) and all(map(is_id, ids)) and len(set(ids)) == len(ids)


def fitting(found: Categories | None, count: int, where: str) -> Categories | None:
    """Return categories, if there are as many as a detector has classes.

    Raises:
        UserError: If their numbers differ.
    """
    if found is not None and len(found.names) != count:
        raise UserError(
            f"{where}: the detector has {count} classes, its data set {_shown(found.names)}; "
            "register the data set that it was trained on"
        )
    return found


def _shown(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:4])}{', ...' * (len(names) > 4)})"
