"""Check a whole re-identification set: which files are unusable, and whether evaluation works."""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kd_core.data.image_files import read_image
from kd_core.errors import UserError
from kd_core.experiment.data_report import check_workers, print_report, read_all
from kd_core.files.checkpoint import save_json
from kd_core.files.fingerprint import hash_of_file
from kd_core.files.new_files import require_writable
from kd_core.runtime.console import out

from kd_reid.arguments import reading_of
from kd_reid.data.folders import Found, divide, read_set
from kd_reid.data.problems import searchable, shared_files, shared_identities, why_impossible
from kd_reid.data.reading import Reading
from kd_reid.data.records import Record, by_identity

UNUSABLE = {
    "missing_files": "missing files",
    "unreadable_files": "files that cannot be decoded",
    "leaked_identities": "identities both to train on and to search for",
    "identical_files": "identical files in two places",
}
"""Parts of the report that make a data set unusable, with their titles."""
_CAMERA = re.compile(r"(c|cam|camera)\d+_", re.IGNORECASE)


def run(args: Namespace) -> int:
    """Print the report of `check`; returns the exit status: 1 if anything is unusable."""
    if args.out:
        require_writable(Path(args.out).expanduser())
    reading = reading_of(args)
    report = check(args.source, workers=args.workers, allow_shared=args.allow_shared, **reading)
    if args.out:
        save_json(report, Path(args.out).expanduser(), sealed=False)
    out.print(f"read as {report['form']}")
    praise = "all usable" if report["evaluation_possible"] else "all images can be read"
    print_report(report, _rows(report), UNUSABLE, praise=praise)
    out.print(_evaluation_text(report))
    if report["cameras"] is None and not reading["same_camera"]:
        for hint in camera_hint(args.source, reading):
            out.print(hint)
    return int(not (report["usable"] and report["evaluation_possible"]))


def check(
    source: str | Path,
    camera: str | None = None,
    *,
    workers: int = 4,
    allow_shared: bool = False,
    **reading: Any,
) -> dict[str, Any]:
    """Return a report about a data set; every image is decoded as in training.

    Args:
        source: See `kd_reid.data.folders.read_set`.
        camera: Where the path below an identity's folder has the camera.
        workers: Threads that decode images.
        allow_shared: Whether identities and files may be in several parts.
        reading: What else the user says of the set, see `Reading`.

    Returns:
        `form`, what the set was read as; counts (`splits` of a set with parts alone; `one_image`
        and `one_camera` are identities with no more than that), the lists of `UNUSABLE`, and
        `usable`: whether all of these are empty. `searchable_identities` have an image with a
        match: another image, by another camera if cameras are known; `evaluation_possible` is
        whether there are any, `reason` why there are none and what helps.

    Raises:
        UserError: If the source cannot be read as a data set.
    """
    check_workers(workers)
    found = read_set(source, Reading(camera=camera, **reading))
    splits = divide(found, train_fraction=0)
    records = [record for part in splits for record in part]
    if not records:
        raise UserError(f"{source}: no images of people in it, only junk or distractors")
    reason, (files, digests) = why_impossible(splits), _files(records, workers)
    shared = (
        ([], {}) if allow_shared else (shared_identities(splits), shared_files(splits, digests))
    )
    whole = found.kind == "people"
    report = {
        "source": str(source),
        "form": found.form,
        "splits": {} if whole else {name: len(part) for name, part in splits._asdict().items()},
        **_counts(records, found),
        "searchable_identities": len(searchable(splits)),
        "evaluation_possible": reason is None,
        "reason": reason,
        **files,
        "leaked_identities": shared[0],
        "identical_files": shared[1],
    }
    report["usable"] = not any(report[key] for key in UNUSABLE)
    return report


def camera_hint(source: str | Path, reading: Mapping[str, Any]) -> list[str]:
    """Return a line on cameras that the names of all images seem to begin with; none otherwise."""
    with suppress(UserError):  # of a set that takes no expression, such as a list
        splits = read_set(source, Reading(**reading)).splits
        begins = [_CAMERA.match(Path(r.path).name) for part in splits for r in part]
        found = {begin[1]: begin[0] for begin in begins if begin}
        if len(found) != 1 or not all(begins):
            return []
        expression = rf"{re.escape(next(iter(found)))}(\d+)"
        splits = read_set(source, Reading(**{**reading, "camera": expression})).splits
        if len({record.camera for part in splits for record in part}) > 1:
            names = " and ".join(sorted({begin[0] for begin in begins if begin})[:2])
            return [f"names begin with {names}: are these cameras? --camera '{expression}'"]
    return []


def _counts(records: Sequence[Record], found: Found) -> dict[str, Any]:
    people = by_identity(record for record in records if record.identity != found.distractor)
    cameras = {name: {record.camera for record in images} for name, images in people.items()}
    known = records[0].camera is not None
    left_out = {name: sum(counts.values()) for name, counts in found.left_out.items()}
    return {
        "images": len(records),
        "distractors": sum(record.identity == found.distractor for record in records),
        "left_out": left_out,
        "identities": len(people),
        "cameras": len({record.camera for record in records}) if known else None,
        "one_image": sum(len(images) == 1 for images in people.values()),
        "one_camera": sum(len(seen) == 1 for seen in cameras.values()) if known else None,
    }


def _files(records: Sequence[Record], workers: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Decode all images; return the missing ones and the errors of others, and hashes by path."""
    missing: list[str] = []
    unreadable: dict[str, str] = {}
    digests: dict[str, str] = {}
    for path, (problem, digest) in read_all([r.path for r in records], _look, workers):
        if problem is None:
            digests[path] = digest
        elif Path(path).is_file():
            unreadable[path] = problem
        else:
            missing.append(path)
    return {"missing_files": missing, "unreadable_files": unreadable}, digests


def _look(path: str) -> tuple[str | None, str]:
    """Return what is wrong with an image, and the hash of its file."""
    try:
        read_image(path)
    except UserError as error:
        return str(error.__cause__ or error), ""
    return None, hash_of_file(Path(path))


def _rows(report: dict[str, Any]) -> dict[str, int | None]:
    left_out = report["left_out"]
    return {
        "images": report["images"],
        **{f"  {name}": count for name, count in report["splits"].items()},
        "distractors in the gallery": report["distractors"],
        "distractors left out": left_out["distractors"],
        "junk left out": left_out["junk"],
        "identities": report["identities"],
        "  of one image": report["one_image"],
        "  seen by one camera": report["one_camera"],
        "cameras": report["cameras"],
    }


def _evaluation_text(report: dict[str, Any]) -> str:
    needed = "two images" if report["cameras"] is None else "images by two cameras"
    if not report["evaluation_possible"]:
        return f"evaluation is not possible: {report['reason']}"
    count = report["searchable_identities"]
    who = "identity" if count == 1 else "identities"
    return f"evaluation is possible: {count:,} {who} can be searched for ({needed})"
