"""Data of re-identification: a config's `data` node names one of these functions."""

from collections.abc import Mapping
from typing import Literal

import torch
from kd_core.config.values import Fraction, NonNegativeInt, PositiveInt
from kd_core.data.device_loader import DeviceLoader
from kd_core.networks.image_task import height_and_width

from kd_reid.data.folders import chosen_split, read_market, read_splits
from kd_reid.data.named import read_named
from kd_reid.data.options import Options, with_options
from kd_reid.data.records import Record
from kd_reid.data.splits import DataSplits, People, make_splits
from kd_reid.synthetic.people import synthetic_people


@with_options
def market1501(options: Options, root: str = "data") -> DataSplits:
    """Market-1501, or any set in its layout: `bounding_box_train`, `query`, `bounding_box_test`.

    Args:
        options: See `Options`; its fields are keywords.
        root: Folder of the set, or one that contains it as `market1501`.
    """
    return make_splits(read_named("market1501", root), options)


@with_options
def public(
    options: Options,
    name: str,
    root: str = "data",
    *,
    split_id: NonNegativeInt | None = None,
    validation: bool | None = None,
    labeled: bool | None = None,
    classic_split: bool | None = None,
) -> DataSplits:
    """A public set by torchreid's name, such as `msmt17` or `cuhk03`; nothing is downloaded.

    Args:
        options: See `Options`; its fields are keywords.
        name: See `kd_reid.data.named.OPTIONS`, also for the next arguments.
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
    return make_splits(read_named(name, root, **given), options, published=True)


@with_options
def people(
    options: Options,
    source: str,
    *,
    camera: str | None = None,
    identity: str | None = None,
    parts: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    distractors: bool = True,
    train_fraction: Fraction | None = None,
    split_seed: NonNegativeInt | None = None,
) -> DataSplits:
    """Your own images: folders, of identities or of parts, or a list of images.

    Args:
        options: See `Options`; its fields are keywords.
        source: A folder with a folder for each identity, or with `train/`, `query/` and `gallery/`,
            or `train/` and `test/` (also as Market-1501 and VeRi-776 call them) that hold such
            folders or images with Market-1501's names; or a CSV file of path, identity and, if
            known, camera and split. What has parts keeps them.
        camera: Regular expression whose only group is the camera in a path below an identity's
            folder; None takes Market-1501's names, if all images have them.
        identity: Likewise the identity, in a path below the set or its part; None takes the name of
            the folder.
        parts: Folders of the parts by `train`, `query`, `gallery` or `test`, if they are not clear.
        columns: Columns of the CSV file by `path`, `identity`, `camera` or `split`, likewise.
        distractors: Whether identity 0000 is nobody in particular, as in Market-1501.
        train_fraction: Share of the identities to train on, in a set without parts; None takes
            half of them.
        split_seed: Chooses them; None takes 0.
    """
    found = read_splits(
        source,
        **chosen_split(train_fraction=train_fraction, split_seed=split_seed),
        camera=camera,
        identity=identity,
        parts=parts,
        columns=columns,
        distractors=distractors,
        same_camera=options.same_camera,
    )
    return make_splits(found, options)


@with_options
def generated(
    options: Options,
    *,
    num_train_ids: PositiveInt = 100,
    num_test_ids: PositiveInt = 80,
    num_cameras: PositiveInt = 4,
    images_per_camera: PositiveInt = 4,
    drawing_seed: NonNegativeInt = 0,
    domain: Literal["day", "night"] = "day",
) -> DataSplits:
    """Synthetic people, drawn once and kept in a cache folder; see `synthetic_people`.

    Args:
        options: See `Options`; its fields are keywords.
        num_train_ids: Identities to train on.
        num_test_ids: Identities to search for.
        num_cameras: Cameras that see each identity.
        images_per_camera: Images of each identity by each camera.
        drawing_seed: Seed of their appearance.
        domain: Place and time, "day" or "night".
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
    return make_splits(read_market(folder), options, published=True)


@with_options
def synthetic(
    options: Options, *, num_ids: PositiveInt = 8, images_per_id: PositiveInt = 4
) -> DataSplits:
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

    def part(camera: str) -> People:
        seen = None if options.same_camera else camera
        records = [Record("", str(label), seen) for label in labels.tolist()]
        return People(DeviceLoader(images, labels, **options.loader_arguments()), records)

    return DataSplits(
        train=DeviceLoader(images, labels, **options.loader_arguments(labels)),
        query=part("1"),
        gallery=part("2"),
        identities=tuple(str(number) for number in range(num_ids)),
        image_size=size,
        mean=tuple(options.mean),
        std=tuple(options.std),
    )
