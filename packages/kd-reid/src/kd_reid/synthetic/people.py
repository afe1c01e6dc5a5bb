"""Synthetic people in the layout of Market-1501, for demo, tests and experiments."""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kd_core.errors import UserError, nearest
from kd_core.files.checkpoint import atomic_folder, load_json, save_json
from kd_core.files.workdir import cache_folder
from kd_core.runtime.console import err
from PIL import Image
from rich.progress import track

from kd_reid.synthetic.appearance import draw_appearance
from kd_reid.synthetic.cameras import DOMAINS, Camera, draw_camera, photograph

FIRST_TEST_IDENTITY = 751
"""Lower identities are for training. Readers of Market-1501 reject more than its 1501 identities
and six cameras."""

_VERSION = 1  # of the drawings; part of the folder's name
_RANGES = {
    "num_train_ids": (1, 750),
    "num_test_ids": (1, 751),
    "num_cameras": (2, 6),
    "images_per_camera": (2, 999),
    "image_height": (32, 1024),
    "seed": (0, 2**32 - 1),
}
_SETTINGS = "synthetic_people.json"
_QUALITY = 90  # of JPEG
_DISTRACTORS = 2  # images in the gallery for each test identity
_EMPTY = 0.3  # share of them with nobody in the middle
_LOOK, _CAMERA, _IMAGE = range(3)  # uses of a seed


class Picture(NamedTuple):
    """An image of the set; its content gives its name."""

    folder: str
    identity: int  # 0 is a distractor, a person or nobody; -1 is junk
    camera: int  # from 1
    number: int  # counts images of an identity and camera; for junk, the identity in it

    @property
    def file_name(self) -> str:
        """Return its file name in the form of Market-1501."""
        person = f"{self.identity:04}" if self.identity >= 0 else "-1"
        return f"{person}_c{self.camera}s1_{self.number:06}_00.jpg"


def synthetic_people(
    folder: str | Path | None = None,
    *,
    num_train_ids: int = 100,
    num_test_ids: int = 80,
    num_cameras: int = 4,
    images_per_camera: int = 4,
    image_height: int = 64,
    seed: int = 0,
    domain: str = "day",
) -> Path:
    """Return a folder with `bounding_box_train/`, `query/` and `bounding_box_test/`.

    Identities share kinds of clothes, build and carried things, so that no single property
    identifies a person; cameras differ in place, direction, light and sharpness. The query has one
    image of each test identity and camera; the gallery has the others, distractors (identity 0)
    and junk (identity -1): cut-off images of test identities.

    The set is drawn (some seconds) unless it exists; it is whole or absent. An image depends only
    on `seed`, its height, identity, camera and number.

    Args:
        folder: Folder of the set; None takes a folder named by the other arguments, in `$KD_CACHE`
            or else in `~/.cache/kd`.
        num_train_ids: Identities for training, numbered from 1.
        num_test_ids: Identities of query and gallery, numbered from 751.
        num_cameras: Each camera sees every identity.
        images_per_camera: Images of an identity by each camera.
        image_height: In pixels; images are half as wide.
        seed: Seed of all images.
        domain: "day", or "night": darker and yellower, with other scenery, and people farther away.
            Two sets have different people if their seeds differ.

    Raises:
        UserError: If there is no such domain, a number is out of range, or the folder has other
            contents.
    """
    if domain not in DOMAINS:
        raise UserError(
            f"synthetic_people: there is no domain {domain!r}{nearest(domain, DOMAINS)}"
        )
    settings: dict[str, Any] = {
        "version": _VERSION,
        "num_train_ids": num_train_ids,
        "num_test_ids": num_test_ids,
        "num_cameras": num_cameras,
        "images_per_camera": images_per_camera,
        "image_height": image_height,
        "domain": domain,
        "seed": seed,
    }
    for key, (least, most) in _RANGES.items():
        if not least <= settings[key] <= most:
            raise UserError(
                f"synthetic_people: wanted {key} of {least} to {most}, got {settings[key]}"
            )
    name = "_".join(["synthetic_people", *map(str, settings.values())])
    folder = cache_folder() / name if folder is None else Path(folder)
    if not folder.exists():
        err.print(f"drawing people into {folder}, once")
        _write(folder, settings)
    _check(folder, settings)
    return folder


def _write(folder: Path, settings: dict[str, Any]) -> None:
    with atomic_folder(folder) as new:
        _draw(new, settings)
        save_json(settings, new / _SETTINGS)


def _draw(folder: Path, settings: dict[str, Any]) -> None:
    seed, height, domain = settings["seed"], settings["image_height"], DOMAINS[settings["domain"]]
    cameras = {
        number: draw_camera(np.random.default_rng([seed, _CAMERA, number]), height, domain)
        for number in range(1, settings["num_cameras"] + 1)
    }
    pictures = list(_pictures(settings))
    for name in {picture.folder for picture in pictures}:
        (folder / name).mkdir()
    for picture in track(pictures, "synthetic people", console=err, transient=True):
        image = _image(picture, cameras[picture.camera], seed, height)
        image.save(folder / picture.folder / picture.file_name, quality=_QUALITY)


def _pictures(settings: dict[str, Any]) -> Iterator[Picture]:
    """List the whole set."""
    cameras = range(1, settings["num_cameras"] + 1)
    numbers = range(settings["images_per_camera"])
    train = range(1, settings["num_train_ids"] + 1)
    test = range(FIRST_TEST_IDENTITY, FIRST_TEST_IDENTITY + settings["num_test_ids"])
    for identity, camera, number in product(train, cameras, numbers):
        yield Picture("bounding_box_train", identity, camera, number)
    for identity, camera, number in product(test, cameras, numbers):
        yield Picture("bounding_box_test" if number else "query", identity, camera, number)
    for number in range(_DISTRACTORS * len(test)):
        yield Picture("bounding_box_test", 0, cameras[number % len(cameras)], number)
    for identity in test:
        yield Picture("bounding_box_test", -1, cameras[identity % len(cameras)], identity)


def _image(picture: Picture, camera: Camera, seed: int, height: int) -> Image.Image:
    # + 1, since seeds cannot be negative
    rng = np.random.default_rng(
        [seed, _IMAGE, picture.identity + 1, picture.camera, picture.number]
    )
    if picture.identity == 0:
        look = None if rng.random() < _EMPTY else draw_appearance(rng)
        return photograph(rng, camera, look, height)
    shown = picture.number if picture.identity < 0 else picture.identity
    look = draw_appearance(np.random.default_rng([seed, _LOOK, shown]))
    image = photograph(rng, camera, look, height)
    return _cut_off(rng, image) if picture.identity < 0 else image


def _cut_off(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Return an enlarged quarter of an image, like a detection of half a person."""
    wide, tall = image.size
    left, top = rng.uniform(0, 0.5, 2) * image.size
    return image.resize(image.size, box=(left, top, left + wide / 2, top + tall / 2))


def _check(folder: Path, settings: dict[str, Any]) -> None:
    """Reject a folder with missing files, other settings or other contents."""
    file = folder / _SETTINGS
    came: Any = f"no {_SETTINGS}"
    if file.is_file():
        remedy = "move the folder elsewhere, and it is drawn again"
        came = load_json(file, remedy=remedy, unsealed=True)  # unsealed: of an older release
    if came != settings:
        raise UserError(
            f"{folder}: wanted synthetic people of {settings}, got {came}; name another folder"
        )
    for name, count in Counter(picture.folder for picture in _pictures(settings)).items():
        found = len(list((folder / name).glob("*.jpg")))
        if found != count:
            raise UserError(
                f"{folder}: wanted {count} images in {name}/, found {found}; move the folder "
                "elsewhere, and it is drawn again"
            )
