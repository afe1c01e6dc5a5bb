"""What makes an evaluation wrong or impossible: asked by the check and before training."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

from kd_core.errors import UserError
from kd_core.files.fingerprint import hash_of_file

from kd_reid.data.reading import option
from kd_reid.data.records import DISTRACTOR, Record, Splits, by_identity

_THREADS = 8
_ALLOW = f"; if it is meant: {option('allow_shared', 'True')}"


def searchable(splits: Splits) -> set[str]:
    """Return the identities with a query that has a match."""
    matches = by_identity(splits.gallery)
    return {
        query.identity
        for query in splits.query
        for found in matches.get(query.identity, ())
        if found.camera is None or found.camera != query.camera
    }


def why_impossible(splits: Splits) -> str | None:
    """Return why nobody can be searched for, and what helps; None if somebody can be."""
    if searchable(splits):
        return None
    names = {query.identity for query in splits.query}
    found = by_identity(splits.gallery)
    if splits.query and not names & found.keys():
        return f"none of the {len(names):,} identities to search for is in the gallery"
    pairs = names & found.keys() or {name for name in found if len(found[name]) > 1}
    if not pairs - {DISTRACTOR}:
        return "there is no identity with two images"
    cameras = {str(record.camera) for part in splits[1:] for record in part}
    seen = f", all are by camera {cameras.pop()!r}" if len(cameras) == 1 else ""
    return (
        f"there is no identity with images by two cameras{seen}; to count matches by the same "
        f"camera too: {option('same_camera', 'True')}"
    )


def shared_identities(splits: Splits) -> list[str]:
    """Return the identities that are both trained on and searched for, or in the gallery."""
    tested = {record.identity for part in splits[1:] for record in part}
    return sorted({record.identity for record in splits.train} & tested)


def shared_files(splits: Splits, digests: Mapping[str, str]) -> dict[str, str]:
    """Return images whose file is identical to another one, where this makes a result wrong.

    A query that is in the gallery as well, of the same identity and camera, does no harm: it is not
    a match, as in VeRi-776.

    Args:
        splits: The set.
        digests: Hashes of files by path; those that cannot be read are missing.

    Returns:
        For the path of each, what it is identical to and why that is wrong.
    """
    copies: dict[str, dict[tuple[str, ...], tuple[str, Record]]] = defaultdict(dict)
    for part, records in splits._asdict().items():
        for record in records:
            if record.path in digests:
                like = part, record.identity, str(record.camera)
                copies[digests[record.path]].setdefault(like, (part, record))
    found: dict[str, str] = {}
    for group in copies.values():
        for one, other in combinations(group.values(), 2):
            if wrong := _wrong(*one, *other):
                found.setdefault(one[1].path, f"is the same file as {other[1].path}, {wrong}")
    return found


def refuse_unusable(splits: Splits, *, allow_shared: bool, look_into_files: bool) -> None:
    """Reject a set that cannot be evaluated, or whose evaluation would be wrong.

    Args:
        splits: The set.
        allow_shared: Whether identities and files may be in several parts.
        look_into_files: Whether to compare all files too.

    Raises:
        UserError: Says what is wrong, and the option that allows it.
    """
    if reason := why_impossible(splits):
        raise UserError(f"the set cannot be evaluated: {reason}")
    if allow_shared:
        return
    if names := shared_identities(splits):
        raise UserError(
            f"{len(names):,} identities are both to train on and to test with, such as "
            f"{names[0]!r}: test with others, or if these are other people of the same names"
            f"{_ALLOW.removeprefix('; if it is meant')}"
        )
    paths = [record.path for part in splits for record in part] if look_into_files else []
    if copies := shared_files(splits, digests_of(paths)):
        path, problem = next(iter(copies.items()))
        more = f" ({len(copies):,} such images)" if len(copies) > 1 else ""
        raise UserError(f"{path}: {problem}{more}; move one of them elsewhere{_ALLOW}")


def digests_of(paths: Sequence[str]) -> dict[str, str]:
    """Return the hashes of the files that may have a copy: those of one size."""
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        sizes[Path(path).stat().st_size].append(path)
    alike = [path for group in sizes.values() if len(group) > 1 for path in group]
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(alike, pool.map(lambda path: hash_of_file(Path(path)), alike), strict=True))


def _wrong(part: str, one: Record, other_part: str, other: Record) -> str | None:
    """Return what is wrong with two images that are one file."""
    if one.identity != other.identity:
        return f"and is {one.identity!r} here, {other.identity!r} there"
    parts = {part, other_part}
    if "train" in parts and len(parts) > 1:
        return "and one is to train on, the other to test with"
    if parts == {"query", "gallery"} and (one.camera is None or one.camera != other.camera):
        return "a query and in the gallery: it is found by itself"
    return None
