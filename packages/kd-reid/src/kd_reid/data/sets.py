"""Data of re-identification: a config's `data` node names one of these functions."""

from typing import Any

import torch
from kd_core.data.loader import DeviceLoader
from kd_core.networks.image_task import height_and_width

from kd_reid.data.folders import read_market, read_splits
from kd_reid.data.loading import (
    Options,
    People,
    ReidData,
    load,
    training_arguments,
    with_options,
)
from kd_reid.data.named import read_named
from kd_reid.data.splits import Record
from kd_reid.synthetic.people import synthetic_people


@with_options
def market1501(options: Options, root: str = "data") -> ReidData:
    """Market-1501, or any set in its layout: `bounding_box_train`, `query`, `bounding_box_test`.

    Args:
        options: See `Options`; its fields are keywords.
        root: Folder of the set, or one that holds it as `market1501`.
    """
    return load(read_named("market1501", root), options)


@with_options
def public(
    options: Options,
    name: str,
    root: str = "data",
    *,
    split_id: int | None = None,
    validation: bool | None = None,
    labeled: bool | None = None,
    classic_split: bool | None = None,
) -> ReidData:
    """A public set by torchreid's name, such as `msmt17` or `cuhk03`; nothing is downloaded.

    Args:
        options: See `Options`; its fields are keywords.
        name: See `kd_reid.data.named.OPTIONS`, as for what follows.
        root: Folder that holds torchreid's folder of the set.
        split_id: Number of the split, where a set has several.
        validation: Of MSMT17.
        labeled: Of CUHK03.
        classic_split: Of CUHK03.
    """
    own = {
        "split_id": split_id,
        "validation": validation,
        "labeled": labeled,
        "classic_split": classic_split,
    }
    given = {option: value for option, value in own.items() if value is not None}
    return load(read_named(name, root, **given), options)


@with_options
def people(
    options: Options,
    source: str,
    *,
    camera: str | None = None,
    train_fraction: float = 0.5,
    split_seed: int = 0,
) -> ReidData:
    """Your own images: a folder for each identity, or a CSV of path, identity and camera.

    Args:
        options: See `Options`; its fields are keywords.
        source: The folder, or the CSV file; what has Market-1501's layout is read as it is.
        camera: Regular expression whose only group is the camera in a path below an identity's
            folder; None if the cameras are not known.
        train_fraction: Share of the identities to train on.
        split_seed: Decides which.
    """
    found = read_splits(source, camera=camera, train_fraction=train_fraction, seed=split_seed)
    return load(found, options)


@with_options
def generated(
    options: Options,
    *,
    num_train_ids: int = 100,
    num_test_ids: int = 80,
    num_cameras: int = 4,
    images_per_camera: int = 4,
    drawing_seed: int = 0,
    domain: str = "day",
) -> ReidData:
    """Synthetic people, made once and kept in a cache folder; see `synthetic_people`.

    Args:
        options: See `Options`; its fields are keywords.
        num_train_ids: Identities to train on.
        num_test_ids: Identities to search for.
        num_cameras: Cameras that see each of them.
        images_per_camera: Images that each camera takes of each.
        drawing_seed: Decides what they look like.
        domain: Where and when they were seen, "day" or "night".
    """
    folder = synthetic_people(
        num_train_ids=num_train_ids,
        num_test_ids=num_test_ids,
        num_cameras=num_cameras,
        images_per_camera=images_per_camera,
        image_height=options.image_size[0],
        seed=drawing_seed,
        domain=domain,
    )
    return load(read_market(folder), options)


@with_options
def synthetic(options: Options, *, num_ids: int = 8, images_per_id: int = 4) -> ReidData:
    """Random images, seen by two cameras, for dry runs.

    Args:
        options: See `Options`; its fields are keywords.
        num_ids: Identities, the same ones in all three parts.
        images_per_id: Images of each identity in each part.
    """
    size = height_and_width(options.image_size)
    labels = torch.arange(num_ids).repeat_interleave(images_per_id)
    generator = torch.Generator().manual_seed(options.data_seed)
    shape = (len(labels), 3, *size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    common: Any = {"batch_size": options.batch_size, "data_seed": options.data_seed}

    def part(camera: str) -> People:
        records = [Record("", str(label), camera) for label in labels.tolist()]
        return People(DeviceLoader(images, labels, **common), records)

    return ReidData(
        train=DeviceLoader(images, labels, **common, **training_arguments(labels, options)),
        query=part("1"),
        gallery=part("2"),
        identities=tuple(str(number) for number in range(num_ids)),
        image_size=size,
        mean=tuple(options.mean),
        std=tuple(options.std),
    )
