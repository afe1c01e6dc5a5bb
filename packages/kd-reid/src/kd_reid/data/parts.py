"""Which folders of a set are its parts: never identities."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kd_core.data.image_listing import entries_of, is_hidden
from kd_core.errors import UserError, nearest
from kd_core.runtime import distributed

from kd_reid.data.reading import option

NAMES = {
    "train": ("train", "training", "bounding_box_train", "image_train"),
    "query": ("query", "queries", "probe", "image_query"),
    "gallery": ("gallery", "bounding_box_test", "image_test"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names of folders in small letters."""
STYLES = {
    "bounding_box_": ("bounding_box_train", "query", "bounding_box_test"),
    "image_": ("image_train", "image_query", "image_test"),
    "": ("train", "query", "gallery"),
}
"""What folders are called where one of them starts like this."""
_VALIDATION = ("val", "valid", "validation")
_KNOWN = {name for names in NAMES.values() for name in names}
_WORDS = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("query", "queries", "probe"), "query"),
    "gallery": "gallery",
    **dict.fromkeys(("test", "testing", "eval", "evaluation", *_VALIDATION), "test"),
}
"""Words in names of folders that are like those of parts."""
_OF_MARKET = ("gt_bbox", "gt_query")


def part_in_name(name: str) -> str | None:
    """Return the part that a folder's name speaks of, if any: `train` for `train_all`.

    A name with numbers in it, such as `test_0001`, may be an identity's.
    """
    if name.lower() in _KNOWN:
        return next(part for part, names in NAMES.items() if name.lower() in names)
    words = re.split(r"[\W_]+", re.sub(r"_v[0-9]+$", "", name.lower()))
    if any(character.isdigit() for word in words for character in word):
        return None
    return next((_WORDS[word] for word in words if word in _WORDS), None)


def find_parts(root: Path, given: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Return the folders of the parts of a set; {} if it has none.

    Args:
        root: Folder of the set.
        given: Their names, if the user says them.

    Raises:
        UserError: If it is not clear which folder is which part, or one is missing.
    """
    if given:
        return _complete(root, {part: require_folder(root / name) for part, name in given.items()})
    names = [e.name for e in entries_of(root) if e.is_dir() and not is_hidden(e.name)]
    if not any(map(part_in_name, names)):
        return {}
    found: dict[str, Path] = {}
    for part, known in NAMES.items():
        fitting = [name for name in names if name.lower() in known]
        if len(fitting) > 1:
            raise _unclear(root, fitting)
        if fitting:
            found[part] = root / fitting[0]
    if not found:
        raise _unclear(root, [name for name in names if part_in_name(name)])
    return _complete(root, found)


def check_others(root: Path, parts: Mapping[str, Path]) -> None:
    """Reject other folders that are called like parts; say which ones are left out.

    Where the parts are named as in Market-1501 or VeRi-776, they are clear: copies of a part, such
    as `bounding_box_train_camstyle`, are left out too.

    Raises:
        UserError: If a folder may be a part of the set.
    """
    used = {path.name for path in parts.values()}
    others = [e.name for e in entries_of(root) if e.is_dir() and not is_hidden(e.name)]
    others = [name for name in others if name not in used and name.lower() not in _OF_MARKET]
    unclear = [name for name in others if part_in_name(name)]
    unclear = [name for name in unclear if name.lower() not in _VALIDATION]
    if unclear and "train" not in parts:
        _require_part(root, "train", parts)
    published = {STYLES["bounding_box_"], STYLES["image_"]}
    if unclear and tuple(path.name for path in parts.values()) not in published:
        rivals = [path.name for path in parts.values()]
        raise _unclear(root, [*rivals, *unclear])
    if others:
        names = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        distributed.print_note(
            f"{root}: left out {len(others):,} folders that are not a part of the set ({names})"
        )


def require_folder(folder: Path) -> Path:
    """Return the folder if it exists.

    Raises:
        UserError: Names the nearest one.
    """
    if not folder.is_dir():
        found = [entry.name for entry in folder.parent.glob("*/")]
        raise UserError(f"{folder}: there is no such folder{nearest(folder.name, found)}")
    return folder


def _complete(root: Path, found: dict[str, Path]) -> dict[str, Path]:
    """Return train (maybe), and either test or query and gallery."""
    if "test" in found and "gallery" in found:
        raise _unclear(root, [found[part].name for part in ("gallery", "test")])
    if "query" in found and "test" in found:
        found["gallery"] = found.pop("test")
    if "test" in found or {"query", "gallery"} <= found.keys():
        return found
    _require_part(root, "gallery" if "query" in found else "query", found)
    return found


def _require_part(root: Path, part: str, found: Mapping[str, Path]) -> None:
    """Name the folder that a part should have beside those found, and what else can be done."""
    style = next(s for s in STYLES if any(path.name.startswith(s) for path in found.values()))
    name = dict(zip(("train", "query", "gallery"), STYLES[style], strict=True))[part]
    try:
        require_folder(root / name)
    except UserError as error:
        advice = f"if it has another name: {option(f'parts.{part}', 'FOLDER')}"
        if list(found) == ["train"]:
            advice = f"to split the people of {found['train']}, give this folder as the source"
        raise UserError(f"{error}; {advice}") from None


def _unclear(root: Path, names: Iterable[str]) -> UserError:
    shown = ", ".join(sorted(names))
    return UserError(
        f"{root}: {shown}: folders named like parts of a set are not identities, and which part "
        f"they are is not clear; say it for each part: {option('parts.train', 'FOLDER')}, and so "
        "with query and gallery, or test"
    )
