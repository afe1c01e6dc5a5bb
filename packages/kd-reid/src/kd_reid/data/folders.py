"""Read a re-identification set of any form: its images, their identities and cameras, its parts."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kd_core.data.image_files import require_image
from kd_core.errors import UserError
from kd_core.runtime import distributed

from kd_reid.data.identities import read_people
from kd_reid.data.lists import ENDINGS, read_list
from kd_reid.data.msmt17 import LISTS, read_msmt17
from kd_reid.data.names import identity_meaning
from kd_reid.data.parts import STYLES, check_others, find_parts, require_folder
from kd_reid.data.reading import PARTS, Kind, Reading, option
from kd_reid.data.records import (
    DISTRACTOR,
    JUNK,
    Record,
    Splits,
    by_identity,
    in_order,
    queries,
    split,
    without_cameras,
)
from kd_reid.data.spelling import one_spelling
from kd_reid.data.veri import listed

MARKET_FOLDERS = dict(zip(Splits._fields, STYLES["bounding_box_"], strict=True))


class Found(NamedTuple):
    """A set as it is on disk, cleaned.

    Attributes:
        form: What it was read as, for people.
        kind: "parts"; "test", whose queries are to be chosen of `gallery`; or "people", all of
            whom are in `gallery`.
        splits: Without what `left_out` counts.
        distractor: Identity of its distractors, which are in `gallery` alone; None if it has none.
        left_out: Images without a person, by kind and part: junk, and distractors outside of the
            gallery.
    """

    form: str
    kind: Kind
    splits: Splits
    distractor: str | None
    left_out: dict[str, dict[str, int]]


def chosen_split(
    *, train_fraction: float | None = None, split_seed: int | None = None
) -> dict[str, Any]:
    """Return the arguments of `read_splits` for what a user says of a split, None for nothing."""
    given = {"train_fraction": train_fraction, "split_seed": split_seed}
    return {
        "train_fraction": 0.5 if train_fraction is None else train_fraction,
        "seed": split_seed or 0,
        "said": [name for name, value in given.items() if value is not None],
    }


def read_splits(
    source: str | Path,
    *,
    train_fraction: float = 0.5,
    seed: int = 0,
    said: Sequence[str] = (),
    **reading: Any,
) -> Splits:
    """Read any set; one without parts is split by `split`.

    Args:
        source: See `read_set`.
        train_fraction: Share of the identities to train on, in a set without parts.
        seed: Chooses them.
        said: Options on the split that the user gave, which must have an effect.
        reading: What the user says of the set, see `Reading`.

    Returns:
        The parts; `train` is empty in a set for evaluation alone.

    Raises:
        UserError: If the set cannot be read or split.
    """
    found = read_set(source, Reading(**reading))
    if said and found.kind != "people":
        raise UserError(
            f"{said[0]}: {source} is split already ({found.form}), so it has no effect; leave it "
            "out"
        )
    _note_left_out(found, source)
    return divide(found, train_fraction=train_fraction, seed=seed)


def divide(found: Found, *, train_fraction: float, seed: int = 0) -> Splits:
    """Return the parts of a set: see `split` for one that has none."""
    train, query, gallery = found.splits
    if found.kind == "people":
        name = found.distractor
        return split(gallery, train_fraction=train_fraction, seed=seed, distractor=name)
    if found.kind == "test":
        people = by_identity(image for image in gallery if image.identity != found.distractor)
        query = [image for images in people.values() for image in queries(images)]
        chosen = set(query)
        gallery = [image for image in gallery if image not in chosen]
    return Splits(train, in_order(query), gallery)


def read_set(source: str | Path, reading: Reading) -> Found:
    """Read a set: a list of images, folders of identities, or folders of parts with these in them.

    Args:
        source: A file, see `read_list`, or a folder: of MSMT17 with its lists; with the parts of
            `find_parts`; or with a folder for each identity.
        reading: What the user says of it.

    Raises:
        UserError: If it cannot be read, or in more than one way.
    """
    path = Path(source)
    is_list = path.is_file() or (path.suffix.lower() in ENDINGS and not path.is_dir())
    form, kind, splits = read_list(path, reading) if is_list else _read_folders(path, reading)
    return _cleaned(form, kind, _settled(splits, source, reading), reading)


def _read_folders(root: Path, reading: Reading) -> tuple[str, Kind, Splits]:
    if reading.columns is not None:
        raise UserError(f"{root}: a folder has no columns; leave columns out")
    if (require_folder(root) / LISTS["train"]).is_file() and reading.parts is None:
        reading.refuse(root, "MSMT17 says them in its lists", "camera", "identity")
        return "MSMT17, by its lists", "parts", read_msmt17(root)
    parts = find_parts(root, reading.parts)
    if not parts:
        return "people, all in one", "people", Splits([], [], read_people(root, reading))
    return _read_parts(root, parts, reading)


def _read_parts(
    root: Path, parts: Mapping[str, Path], reading: Reading
) -> tuple[str, Kind, Splits]:
    images = {part: read_people(parts[part], reading, part) for part in PARTS if part in parts}
    if reading.parts is None:
        check_others(root, parts)
    if all(path.name.lower().startswith("image_") for path in parts.values()):
        images = {part: listed(root, part, found) for part, found in images.items()}
    form = "parts: " + ", ".join(parts[part].name for part in PARTS if part in parts)
    train, query = images.get("train", []), images.get("query", [])
    if "test" in images:
        return form, "test", Splits(train, [], images["test"])
    return form, "parts", Splits(train, query, images["gallery"])


def _settled(splits: Splits, source: str | Path, reading: Reading) -> Splits:
    """Write names in one way, and keep cameras only if every image has one."""
    splits = one_spelling(splits, str(source))
    known = [record.camera is not None for part in splits for record in part]
    if all(known) and not reading.same_camera:
        return splits
    if any(known) and not all(known):
        distributed.print_note(
            f"{source}: cameras are not known: only {sum(known):,} of {len(known):,} names of "
            f"images say one; others: {option('camera', 'REGEX')}"
        )
    return without_cameras(splits)


def _cleaned(form: str, kind: Kind, splits: Splits, reading: Reading) -> Found:
    """Leave out images without a person."""
    names = {record.identity for part in splits for record in part}
    zeros = (name for name in names if name.startswith(DISTRACTOR) and not name.strip("0"))
    nobody = next(zeros, DISTRACTOR) if reading.distractors else None
    kept: dict[str, list[Record]] = {}
    left: dict[str, dict[str, int]] = {"junk": {}, "distractors": {}}
    for part, records in splits._asdict().items():
        sound = [record for record in records if identity_meaning(record.identity) != JUNK]
        left["junk"][part] = len(records) - len(sound)
        kept[part] = [r for r in sound if part == "gallery" or r.identity != nobody]
        left["distractors"][part] = len(sound) - len(kept[part])
    return Found(form, kind, Splits(**kept), nobody, left)


def _note_left_out(found: Found, source: str | Path) -> None:
    """Report what is not trained on or searched for, though it is in the set."""
    own = found.kind == "people"
    counts = {
        f"{name} of {'the set' if own else part}": count
        for name, of in found.left_out.items()
        for part, count in of.items()
        if count and (own or part != "gallery")  # junk in a gallery is usual
    }
    nobody = sum(image.identity == found.distractor for image in found.splits.gallery)
    if own and nobody:
        counts["distractors, which are in the gallery alone"] = nobody
    if counts:
        shown = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        distributed.print_note(
            f"{source}: images without a person are not trained on or searched for (identity -1 "
            f"is junk, 0000 a distractor): {shown}; if 0000 is a person: "
            f"{option('distractors', 'False')}"
        )


def read_market(root: str | Path) -> Splits:
    """Read a folder in the layout of Market-1501; junk, of identity -1, is left out.

    The distractors of its gallery stay: each is a wrong match for every query.

    Args:
        root: Holds `bounding_box_train`, `query` and `bounding_box_test`, with names such as
            `0002_c1s1_000451_03.jpg` (identity 0002, camera 1).

    Raises:
        UserError: If a folder is missing or empty, or the name of an image has another form.
    """
    parts = {part: require_folder(Path(root) / name) for part, name in MARKET_FOLDERS.items()}
    form, kind, splits = _read_parts(Path(root), parts, Reading())
    return _cleaned(form, kind, _settled(splits, root, Reading()), Reading()).splits


def require_files(records: Iterable[Record]) -> None:
    """Reject missing images, before any work starts.

    Raises:
        UserError: Names the first of them.
    """
    odd = [record.path for record in records if not os.path.isfile(record.path)]
    if odd and os.path.lexists(odd[0]):
        require_image(odd[0])  # the error says what it is
    if odd:
        raise UserError(f"{odd[0]}: there is no such image ({len(odd)} are missing)")
