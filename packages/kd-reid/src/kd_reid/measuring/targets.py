"""Sets to be searched, of which nothing is trained on."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kd_core.config.node import Node, located_type, parse
from kd_core.config.reading import load_config
from kd_core.data.image_loader import image_loader, is_resident, packed
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError, located
from kd_core.experiment.builder import DATA, build_data
from torchvision.transforms import v2

from kd_reid.data.folders import require_files
from kd_reid.data.options import Options
from kd_reid.data.problems import why_impossible
from kd_reid.data.reading import Reading
from kd_reid.data.records import Record, Splits
from kd_reid.data.sources import read_source
from kd_reid.data.spelling import one_spelling
from kd_reid.data.splits import RESIDENT_BYTES, People

_USUAL = vars(Reading())
_NO_TRAINING = {"drop_last": False, "instances": None}


@dataclass
class Target:
    """A set to be searched.

    Args:
        source: As the user named it.
        query: Images to search for.
        gallery: Images to search in.
    """

    source: str
    query: People
    gallery: People

    def to(self, device: torch.device) -> None:
        """Let the loaders make their batches on a device."""
        for part in (self.query, self.gallery):
            part.loader.to(device)


@dataclass
class Images:
    """Images that are known by their records alone."""

    records: list[Record]


@dataclass(frozen=True)
class Searching:
    """Images to search for, and to search in, before their files are opened."""

    source: str
    query: Images
    gallery: Images
    node: Node | None = None  # of a config, which makes its own loaders
    is_whole: bool = False  # the set has no part of its own to train on


def read_searching(source: str, **reading: Any) -> Searching:
    """Read which images a set has, and refuse one that cannot be evaluated.

    Args:
        source: A folder, a CSV file, `NAME:ROOT` of a public set, or a config whose `data` is
            meant.
        reading: What the user says of the set, see `Reading`.

    Raises:
        UserError: If it cannot be read, or no query has a right image to find.
    """
    if Path(source).suffix == ".py":
        if others := unusual(reading):
            raise UserError(f"{source}: say it in the config, as data.{others[0]}")
        return Searching(source, Images([]), Images([]), _data_node(source))
    found = one_spelling(read_source(source, **reading), source)
    query, gallery = Images(found.query), Images(found.gallery)
    searching = Searching(source, query, gallery, is_whole=not found.train)
    require_searchable(searching)
    require_files([*query.records, *gallery.records])
    return searching


def unusual(reading: Mapping[str, Any]) -> list[str]:
    """Return what a user said of how a set is read; see `Reading`."""
    return [name for name, value in reading.items() if value != _USUAL[name]]


def require_searchable(searching: Searching) -> None:
    """Reject a set in which nobody can be found.

    Raises:
        UserError: If query or gallery is empty, or no query has a match.
    """
    splits = Splits([], searching.query.records, searching.gallery.records)
    if reason := why_impossible(splits):
        raise UserError(f"{searching.source}: cannot be searched: {reason}")


def open_target(searching: Searching, image_size: tuple[int, int], options: Options) -> Target:
    """Make the loaders of a set.

    Args:
        searching: Its images.
        image_size: Height and width that images are resized to.
        options: Batch size and workers.
    """
    if searching.node is not None:
        data = build_data(searching.node, 0, torch.device("cpu"))
        return Target(searching.source, data.query, data.gallery)
    count = len(searching.query.records) + len(searching.gallery.records)
    resident = is_resident(options.resident, count, image_size, RESIDENT_BYTES)
    query, gallery = (
        People(files_loader([r.path for r in records], image_size, options, resident), records)
        for records in (searching.query.records, searching.gallery.records)
    )
    return Target(searching.source, query, gallery)


def files_loader(
    files: Sequence[str], image_size: tuple[int, int], options: Options, resident: bool
) -> SplitLoader:
    """Return the loader of image files, in their order.

    Args:
        files: Their paths.
        image_size: Height and width that they are resized to.
        options: Batch size and workers.
        resident: Whether they are all decoded now.
    """
    reading = {
        "image_size": image_size,
        "workers": options.workers,
        "worker_timeout": options.worker_timeout,
    }
    transform, numbers = v2.Resize(image_size), torch.arange(len(files))
    given: dict[str, Any] = {"resident": resident, "reading": reading}
    return image_loader(packed(files), numbers, transform, **given, **options.loader_arguments())


def _data_node(source: str) -> Node:
    """Return the checked `data` node of a config file."""
    config = load_config([source])
    if not isinstance(config.get("data"), dict):
        raise UserError(f"{source}: wanted a config with data=dict(type=...)")
    with located(source):
        node = parse(config["data"], "data", kind=DATA, provided=("data_seed",))
        known = inspect.signature(located_type(config["data"], "data")).parameters
        # Of training batches, which are not needed: they must not refuse a small set.
        return node.changed(**{key: value for key, value in _NO_TRAINING.items() if key in known})
