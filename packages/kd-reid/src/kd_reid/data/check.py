"""Check a whole re-identification set: which files are unusable, and whether evaluation works."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_core.data.image_files import read_image
from kd_core.errors import UserError
from kd_core.experiment.data_report import check_workers, print_report, read_all
from kd_core.files.checkpoint import save_json
from kd_core.runtime.console import out

from kd_reid.data.folders import DISTRACTOR, is_market, read_splits
from kd_reid.data.records import Record, Splits, by_identity

UNUSABLE = {
    "missing_files": "missing files",
    "unreadable_files": "files that cannot be decoded",
    "leaked_identities": "identities both to train on and to search for",
}
"""Parts of the report that make a data set unusable, with their titles."""


def run(args: Namespace) -> int:
    """Print the report of `check`; returns the exit status: 1 if anything is unusable."""
    report = check(args.source, args.camera, workers=args.workers)
    if args.out:
        save_json(report, Path(args.out), sealed=False)
    print_report(report, _rows(report), UNUSABLE)
    out.print(_evaluation_text(report))
    return int(not report["usable"])


def check(source: str | Path, camera: str | None = None, *, workers: int = 4) -> dict[str, Any]:
    """Return a report about a data set; every image is decoded as in training.

    Args:
        source: A folder with a folder for each identity, a CSV file, or a folder in the layout of
            Market-1501.
        camera: Where the path below an identity's folder has the camera; see `read_folder`.
        workers: Threads that decode images.

    Returns:
        Counts (`splits` of Market-1501's layout alone; `one_image` and `one_camera` are identities
        with no more than that), the lists of `UNUSABLE`, and `usable`: whether all of these are
        empty. `searchable_identities` have an image with a match: another image, by another
        camera if cameras are known; `evaluation_possible` is whether there are any.

    Raises:
        UserError: If the source cannot be read as a data set.
    """
    check_workers(workers)
    market = is_market(source)
    splits = read_splits(source, camera=camera, train_fraction=0)
    records = [record for part in splits for record in part]
    searchable = _searchable(splits)
    report = {
        "source": str(source),
        "splits": {name: len(part) for name, part in splits._asdict().items()} if market else {},
        **_counts(records, DISTRACTOR if market else None),
        "searchable_identities": len(searchable),
        "evaluation_possible": bool(searchable),
        "leaked_identities": sorted(
            set(by_identity(splits.train)) & set(by_identity(splits.query))
        ),
        **_files(records, workers),
    }
    report["usable"] = not any(report[key] for key in UNUSABLE)
    return report


def _counts(records: Sequence[Record], distractor: str | None) -> dict[str, Any]:
    people = by_identity(record for record in records if record.identity != distractor)
    cameras = {name: {record.camera for record in images} for name, images in people.items()}
    known = records[0].camera is not None
    return {
        "images": len(records),
        "distractors": sum(record.identity == distractor for record in records),
        "identities": len(people),
        "cameras": len({record.camera for record in records}) if known else None,
        "one_image": sum(len(images) == 1 for images in people.values()),
        "one_camera": sum(len(seen) == 1 for seen in cameras.values()) if known else None,
    }


def _searchable(splits: Splits) -> set[str]:
    """Return the identities with a query that has a match."""
    matches = by_identity(splits.gallery)
    return {
        query.identity
        for query in splits.query
        for found in matches.get(query.identity, ())
        if found.camera is None or found.camera != query.camera
    }


def _files(records: Sequence[Record], workers: int) -> dict[str, Any]:
    """Decode all images; return the missing ones, and the errors of others by path."""
    missing: list[str] = []
    unreadable: dict[str, str] = {}
    for path, problem in read_all([record.path for record in records], _problem, workers):
        if problem is None:
            continue
        if Path(path).is_file():
            unreadable[path] = problem
        else:
            missing.append(path)
    return {"missing_files": missing, "unreadable_files": unreadable}


def _problem(path: str) -> str | None:
    try:
        read_image(path)
    except UserError as error:
        return str(error.__cause__ or error)
    return None


def _rows(report: dict[str, Any]) -> dict[str, int | None]:
    return {
        "images": report["images"],
        **{f"  {name}": count for name, count in report["splits"].items()},
        "distractors": report["distractors"],
        "identities": report["identities"],
        "  of one image": report["one_image"],
        "  seen by one camera": report["one_camera"],
        "cameras": report["cameras"],
    }


def _evaluation_text(report: dict[str, Any]) -> str:
    needed = "two images" if report["cameras"] is None else "images by two cameras"
    if not report["evaluation_possible"]:
        return f"evaluation is not possible: there is no identity with {needed}"
    count = report["searchable_identities"]
    return f"evaluation is possible: {count:,} identities can be searched for ({needed})"
