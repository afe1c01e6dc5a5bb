"""Several sets as one to train on; each person stays a person of their own set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_core.config.values import Fraction
from kd_core.errors import UserError

from kd_reid.data.folders import chosen_split
from kd_reid.data.options import Options, with_options
from kd_reid.data.records import Record, Splits
from kd_reid.data.sources import public_set, read_source
from kd_reid.data.splits import DataSplits, make_splits


@with_options
def merged(
    options: Options,
    sources: Sequence[str],
    search: str,
    *,
    camera: str | None = None,
    train_fraction: Fraction | None = None,
) -> DataSplits:
    """Train on several sets at once, and evaluate on one of them or on another.

    Equally named people of two sets are two people. Of a set that has a split, its training part is
    trained on; of your own folder or CSV all people are, unless it is searched too.

    Args:
        options: See `Options`; its fields are keywords.
        sources: Sets to train on: folders, CSV files, or `NAME:ROOT` of a public set.
        search: The set that is evaluated, likewise.
        camera: See `people`; of `search`.
        train_fraction: Share of the identities of `search` that are trained on, if it is one of
            `sources` and has no split of its own; None takes half of them.
    """
    reading = {"camera": camera, "same_camera": options.same_camera}
    found = read_merged(sources, search, train_fraction=train_fraction, **reading)
    return make_splits(found, options)


def read_merged(
    sources: Sequence[str],
    search: str,
    *,
    train_fraction: float | None = None,
    **reading: Any,
) -> Splits:
    """Read the sets of `merged`; identities are `NUMBER/NAME`, the number of their set.

    Args:
        sources: See `merged`.
        search: See `merged`.
        train_fraction: See `merged`.
        reading: Of `search`, see `Reading`.

    Raises:
        UserError: If a set is named twice, has nothing to train on, or cannot be read.
    """
    if isinstance(sources, str) or not sources:
        raise UserError(f"data.sources: wanted a list of sets, got {sources!r}")
    places = [_place(source) for source in sources]
    if twice := [
        source for source, place in zip(sources, places, strict=True) if places.count(place) > 1
    ]:
        raise UserError(f"data.sources: {twice[0]} is named twice; name each set once")
    if train_fraction is not None and (_place(search) not in places or public_set(search)):
        raise UserError(
            f"train_fraction: {search} is not one of data.sources, or is split already, so it has "
            "no effect; leave it out"
        )
    train: list[Record] = []
    searched: Splits | None = None
    for number, source in enumerate(sources):
        is_searched = _place(source) == _place(search)
        how = {**chosen_split(train_fraction=train_fraction), **reading}
        if not is_searched:  # nobody looks at cameras in training
            how = {"train_fraction": 1.0}
        found = read_source(source, **how)
        if not found.train:
            raise UserError(f"data.sources: {source} has no images to train on; leave it out")
        train += [record._replace(identity=f"{number}/{record.identity}") for record in found.train]
        searched = found if is_searched else searched
    if searched is None:
        searched = read_source(search, **reading)
    return Splits(train, searched.query, searched.gallery)


def _place(source: str) -> str:
    public = public_set(source)
    if public is None:
        return str(Path(source).expanduser().resolve())
    return f"{public[0]}:{Path(public[1]).expanduser().resolve()}"
