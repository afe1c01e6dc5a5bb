"""Identities and cameras that are written in several ways in one set."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kd_core.runtime import distributed

from kd_reid.data.names import camera_meaning, identity_meaning
from kd_reid.data.records import Record, Splits


class _Ways(NamedTuple):
    """One name for all ways of writing it, and an example of two."""

    chosen: dict[str, str]
    several: list[list[str]]


def one_spelling(splits: Splits, where: str) -> Splits:
    """Write each identity and each camera in one way, and say so where there were several.

    Args:
        splits: All parts of a set.
        where: The set, for messages.
    """
    records = [record for part in splits for record in part]
    identities = _ways((record.identity for record in records), identity_meaning)
    seen = (record.camera for record in records if record.camera is not None)
    cameras = _ways(seen, camera_meaning)
    for kind, ways in (("identities", identities), ("cameras", cameras)):
        if ways.several:
            example = " and ".join(map(repr, ways.several[0]))
            distributed.print_note(
                f"{where}: {len(ways.several):,} {kind} are written in several ways, such as "
                f"{example}; each counts as one"
            )
    _note_case(identities, where)
    if not (identities.several or cameras.several):
        return splits

    def rewritten(record: Record) -> Record:
        camera = None if record.camera is None else cameras.chosen[record.camera]
        return Record(record.path, identities.chosen[record.identity], camera)

    return Splits(*([rewritten(record) for record in part] for part in splits))


def _ways(names: Iterable[str], meaning: Callable[[str], str]) -> _Ways:
    found: dict[str, set[str]] = defaultdict(set)
    for name in set(names):
        found[meaning(name)].add(name)
    chosen = {name: min(ways, key=_rank) for ways in found.values() for name in ways}
    return _Ways(chosen, sorted(sorted(ways) for ways in found.values() if len(ways) > 1))


def _rank(name: str) -> tuple[int, int, str]:
    """Prefer `0007` to `7`, so that distractors stay `0000`, and `7` to `7.0`."""
    return -len(name.partition(".")[0]), len(name), name


def _note_case(identities: _Ways, where: str) -> None:
    """Report which identities differ in capitals alone: they stay apart."""
    alike = _ways(set(identities.chosen.values()), str.casefold).several
    if alike:
        example = " and ".join(map(repr, alike[0]))
        distributed.print_note(
            f"{where}: {example} differ in capitals alone and count as different identities"
        )
