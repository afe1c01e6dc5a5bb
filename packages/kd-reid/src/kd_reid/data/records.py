"""Records of images (file, identity, camera), and their split."""

from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
from kd_core.errors import UserError

from kd_reid.data.names import Key, camera_meaning, identity_meaning, natural


class Record(NamedTuple):
    """An image of a person."""

    path: str
    identity: str
    camera: str | None  # None if the cameras of the set are not known


DISTRACTOR = "0000"
"""Identity of Market-1501's distractors, images of other people or without a person."""
JUNK = "-1"
"""Identity of images that count neither as right nor as wrong."""


class Splits(NamedTuple):
    """Images to train on, to search for, and to search in."""

    train: list[Record]
    query: list[Record]
    gallery: list[Record]


def split(
    records: Sequence[Record],
    *,
    train_fraction: float = 0.5,
    seed: int = 0,
    distractor: str | None = None,
) -> Splits:
    """Split identities into training and evaluation, and choose the queries.

    Args:
        records: Your own set, of `read_folder` or `read_csv`. Its distractors are in the gallery.
        train_fraction: Share of the identities to train on: 1 leaves nothing to evaluate, 0 nothing
            to train on.
        seed: Chooses them.
        distractor: Identity that is nobody in particular, if there is one.

    Raises:
        UserError: If the share is not in [0, 1], or nothing is left for training or evaluation.
    """
    if not 0 <= train_fraction <= 1:
        raise UserError(f"train_fraction: wanted a number from 0 to 1, got {train_fraction}")
    rng = np.random.default_rng(seed)
    identities = by_identity(records)
    nobody = identities.pop(distractor, []) if distractor is not None else []
    order = rng.permutation(sorted(identities, key=_order)).tolist()
    count = round(train_fraction * len(order))
    chosen, others = (
        [identities[name] for name in names] for names in (order[:count], order[count:])
    )
    query = list(chain.from_iterable(map(queries, others)))
    too_few = train_fraction > 0 and count < 2
    if too_few or (0 < train_fraction < 1 and not query):
        raise UserError(
            f"of {len(order)} identities, {count} are for training (at least two are needed), and "
            f"{len(query)} images of the others have a match; change train_fraction, "
            f"which is {train_fraction}, or add identities that several cameras saw, or count "
            "matches by the same camera too: data.same_camera=True"
        )
    gallery = {*chain.from_iterable(others), *nobody} - set(query)
    return Splits(in_order(chain.from_iterable(chosen)), in_order(query), in_order(gallery))


def in_order(records: Iterable[Record]) -> list[Record]:
    """Sort images by their paths, numbers in them by their values."""
    return sorted(records, key=lambda record: (natural(record.path), *map(str, record[1:])))


def queries(images: Sequence[Record]) -> list[Record]:
    """Choose the queries among the images of an identity; the others go to the gallery.

    A query is the first image of each camera with several images; if no camera has several, the
    first image of all. Each query has a match by another camera (if cameras are not known, another
    image); else there is none.

    Args:
        images: All of one identity.
    """
    images = sorted(images, key=_by_camera)
    groups = [list(group) for _, group in groupby(images, lambda record: record.camera)]
    if len(images if images[0].camera is None else groups) < 2:
        return []
    return [group[0] for group in groups if len(group) > 1] or images[:1]


def without_cameras(splits: Splits) -> Splits:
    """Return a set whose cameras are not known: every other image of a person is a match."""
    return Splits(*([record._replace(camera=None) for record in part] for part in splits))


def by_identity(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the images of each identity."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.identity, []).append(record)
    return found


def relabel(records: Sequence[Record]) -> tuple[list[int], list[str]]:
    """Number the identities in the order of their names: a label for each image, and the names."""
    names = sorted({record.identity for record in records}, key=_order)
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[record.identity] for record in records], names


def _order(identity: str) -> Key:
    """Sort identities by what they mean: the order does not depend on zeros before a number."""
    return natural(identity_meaning(identity))


def _by_camera(record: Record) -> tuple[Key, Key]:
    return natural(camera_meaning(record.camera or "")), natural(record.path)
