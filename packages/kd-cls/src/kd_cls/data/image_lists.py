"""Your own images in a list: a CSV file of paths, labels and, if known, parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from kd_core.config.values import Fraction, NonNegativeInt
from kd_core.data.image_loader import packed
from kd_core.errors import UserError, nearest
from torch import Tensor

from kd_cls.data.file_options import FileOptions, splits_of_files, with_file_options
from kd_cls.data.folders import Files, check_missing
from kd_cls.data.list_columns import Entry, read_entries
from kd_cls.data.list_files import Listed, found_files
from kd_cls.data.list_labels import check_numbers, class_order
from kd_cls.data.options import Options, with_options
from kd_cls.data.splits import DataSplits, held_out, select

_ADVICE = "name the test images: --cfg-options data.test=FILE.csv, or data.test_share=0.2"


@with_options
@with_file_options
def image_list(
    reading: FileOptions,
    options: Options,
    csv: str,
    *,
    root: str | None = None,
    test: str | None = None,
    test_share: Fraction | None = None,
    split_seed: NonNegativeInt = 0,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    outside_root: bool = False,
) -> DataSplits:
    """Your own images in a CSV file with a line `path,label` or `path,label,split`.

    Separated by commas, semicolons, tabs or bars. Labels are texts: `01` and `1` in one set are
    refused. Classes are in the order of their names; where all are whole numbers, of these. An
    image that is listed twice alike counts once, which is said.

    Args:
        reading: See `FileOptions`; its fields are keywords.
        options: See `Options`; its fields are keywords.
        csv: The list. Its parts are train, val and test; where none is test, val is.
        root: Folder that relative paths start from; None takes that of the list.
        test: List of the test images, where `csv` does not say which they are.
        test_share: Or the share of every class that is drawn as test images.
        split_seed: Seed of that draw; not `data_seed`, so that runs share a test set.
        path_column: Name of the column of paths, if it is none of the usual names.
        label_column: Name of the column of labels, likewise.
        split_column: Name of the column of parts, likewise.
        outside_root: Whether relative paths may leave `root`; absolute ones may be anywhere.

    Raises:
        UserError: If a list cannot be read in one way alone, images are missing or in two parts,
            or a label is not one of the training images.
    """
    columns = {"path": path_column, "label": label_column, "split": split_column}
    of_test = None if test is None else read_entries(test, columns)
    parts = _parts(csv, read_entries(csv, columns), of_test, test_share)
    listed = {}
    for name, part in parts.items():
        source = test if name == "test" and test is not None else csv
        folder = Path(source).parent if root is None else Path(root)
        listed[name] = found_files(part, folder, outside_root)
    _check_apart(listed)
    check_numbers([entry for part in listed.values() for entry in part])
    classes = class_order({entry.label for entry in listed["train"]})
    files = {name: _files(part, classes, name) for name, part in listed.items()}
    if test_share is not None:
        chosen = held_out(files["train"][1], test_share, split_seed, classes, "test_share")
        whole = files["train"]
        files["train"], files["test"] = select(whole, ~chosen), select(whole, chosen)
    for name, (_, labels) in files.items():
        check_missing(labels, classes, f"{csv}, {name} part", reading.allow_missing_classes)
    return splits_of_files(
        files["train"], files["test"], classes, options, reading, val=files.get("val")
    )


def _parts(
    csv: str, entries: Sequence[Entry], of_test: list[Entry] | None, test_share: float | None
) -> dict[str, list[Entry]]:
    """Sort entries into `train`, `test` (not if a share will be drawn) and, if there are, `val`."""
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        parts.setdefault(entry.part or "train", []).append(entry)
    if "train" not in parts:
        raise UserError(f"{csv}: no line says train in its column of parts")
    if of_test is not None:
        _check_test(parts.get("test", []), of_test, csv)
        parts["test"] = of_test
    elif test_share is None and "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    if test_share is not None and "test" in parts:
        raise UserError(f"{csv}: the test images are named; leave data.test_share out")
    if test_share is None and "test" not in parts:
        why = "no line says test or val" if entries[0].part else "no column says train or test"
        raise UserError(f"{csv}: {why}; {_ADVICE}")
    return parts


def _check_test(of_list: Sequence[Entry], of_test: Sequence[Entry], csv: str) -> None:
    """Reject a second list of test images, and a list of test images with others in it."""
    if of_list:
        raise UserError(f"{of_list[0].place}: is a test image; leave data.test out, or this line")
    if others := [entry for entry in of_test if entry.part == "train"]:
        raise UserError(
            f"{others[0].place}: is a training image in the list of data.test; {csv} has those"
        )


def _check_apart(listed: Mapping[str, Sequence[Listed]]) -> None:
    """Reject an image in two parts."""
    seen: dict[str, tuple[str, Listed]] = {}
    for name, part in listed.items():
        for image in part:
            other, first = seen.setdefault(image.path, (name, image))
            if other != name:
                raise UserError(
                    f"{image.place}: {image.path} is in {name}, and in {other} ({first.place}); "
                    "keep it in one of them"
                )


def _files(part: Sequence[Listed], classes: Sequence[str], name: str) -> Files:
    numbers = {label: number for number, label in enumerate(classes)}
    if unknown := [image for image in part if image.label not in numbers]:
        labels = sorted({image.label for image in unknown})
        raise UserError(
            f"{unknown[0].place}: the training images have no class {unknown[0].label!r} of this "
            f"{name} image{nearest(unknown[0].label, classes)} ({len(labels)} such classes)"
        )
    labels_of: Tensor = torch.tensor([numbers[image.label] for image in part], dtype=torch.int64)
    return packed(image.path for image in part), labels_of
