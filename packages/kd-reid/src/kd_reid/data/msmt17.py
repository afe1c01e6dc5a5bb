"""MSMT17, whose parts and identities are in its lists."""

import os
import re
from pathlib import Path

from kd_core.errors import UserError

from kd_reid.data.records import Record, Splits

LISTS = {name: f"list_{name}.txt" for name in ("train", "val", "query", "gallery")}
_FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))  # of V1 and of V2
_LINE = re.compile(r"(\d+/\d+_\d+_(\d+)_\S+) (\d+)")


# Not torchreid's class: it adds list_val.txt only with query and gallery (`combineall`), takes V1
# even where V2 is beside it, and gives people of both halves the same numbers.
def read_msmt17(folder: Path, *, validation: bool = True) -> Splits:
    """Read MSMT17. Its identities are `train_0000` and `test_0000`: numbers restart in the test.

    Args:
        folder: Holds the lists, and the folders of images of V1 or V2.
        validation: Whether list_val.txt is trained on too, as in its paper.

    Raises:
        UserError: If a list or the folders are missing, or a line has another form.
    """
    halves = [pair for pair in _FOLDERS if (folder / pair[0]).is_dir()]
    if len(halves) != 1:
        raise UserError(
            f"{folder}: wanted either train/ and test/ (V1) or mask_train_v2/ and mask_test_v2/ "
            f"(V2) beside the lists, got {'both' if halves else 'neither'}"
        )
    train, test = (folder / name for name in halves[0])
    lists = ("train", "val") if validation else ("train",)
    return Splits(
        [record for name in lists for record in _read(folder, name, train, "train")],
        _read(folder, "query", test, "test"),
        _read(folder, "gallery", test, "test"),
    )


def _read(folder: Path, name: str, images: Path, half: str) -> list[Record]:
    file = folder / LISTS[name]
    if not file.is_file():
        raise UserError(f"{file}: there is no such file; it belongs to MSMT17")
    records, inside = [], str(images)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(
                f"{file}:{number}: wanted a line such as "
                f"'0000/0000_000_01_0303morning_0008_0.jpg 0', got {line!r}"
            )
        path, camera, identity = match[1], int(match[2]), int(match[3])
        records.append(Record(os.path.join(inside, path), f"{half}_{identity:04d}", str(camera)))
    return records
