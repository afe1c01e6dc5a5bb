"""Read public re-identification data sets by name, in their published layouts."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from operator import itemgetter
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from kd_core.errors import UserError, located, nearest

from kd_reid import torchreid
from kd_reid.data.folders import MARKET_FOLDERS, read_market, require_files
from kd_reid.data.msmt17 import LISTS, read_msmt17
from kd_reid.data.records import Record, Splits

THROUGH_TORCHREID = {
    "cuhk01": ["cuhk01/campus"],
    "cuhk02": [f"cuhk02/Dataset/P{pair}/cam{side}" for pair in range(1, 6) for side in (1, 2)],
    "cuhksysu": ["cuhksysu/cropped_images"],
    "grid": [
        f"grid/underground_reid/{name}"
        for name in ("probe", "gallery", "features_and_partitions.mat")
    ],
    "ilids": ["ilids/i-LIDS_Pedestrian/Persons"],
    "prid": [f"prid2011/prid_2011/single_shot/cam_{side}" for side in "ab"],
    "sensereid": [f"sensereid/SenseReID/test_{part}" for part in ("probe", "gallery")],
    "viper": [f"viper/VIPeR/cam_{side}" for side in "ab"],
}
"""Files and folders below `root` that torchreid's reader needs."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "market1501": (),
    "msmt17": ("validation",),
    "cuhk03": ("labeled", "classic_split", "split_id"),
    **dict.fromkeys(("cuhk02", "cuhksysu", "sensereid"), ()),
    **dict.fromkeys(("cuhk01", "grid", "ilids", "prid", "viper"), ("split_id",)),
}
"""The names of the sets, torchreid's own, and which options each takes."""

_WITHDRAWN = (
    "DukeMTMC-reID is not offered: its authors withdrew it in 2019; take market1501 or msmt17"
)
_EXTRACT = (
    "; torchreid makes the list from cuhk-03.mat, if h5py and imageio are installed, by "
    "torchreid.data.ImageDataManager(root=FOLDER_OF_cuhk03, sources='cuhk03')"
)
_CUHK03_NAME = re.compile(r"(\d_\d+)_([12])_\d+\.png")


def read_named(name: str, root: str | Path, **options: Any) -> Splits:
    """Read a public data set from disk; nothing is downloaded.

    MSMT17's identities are `train_0000` and `test_0000`, since its numbers restart in the second
    half; CUHK03's are camera pair and person, and its cameras 1 and 2 are the sides of a pair.

    Args:
        name: One of `OPTIONS`.
        root: Folder that holds torchreid's, such as `market1501` or `viper`; for Market-1501,
            MSMT17 and CUHK03 also the set's own folder. CUHK03 is either what torchreid extracts
            or Zhong et al.'s `cuhk03-np`, in the layout of Market-1501.
        options: `split_id`, from 0, where there are several. MSMT17: `validation` (True) trains on
            list_val.txt too, as its paper does; torchreid does not. CUHK03: `labeled` (False) boxes
            instead of detected ones; `classic_split` (False) instead of the 767/700 protocol, whose
            20 splits search the same images that are searched for.

    Raises:
        UserError: If there is no such set, it has no such option, or the files are of another set.
    """
    if name.lower().startswith("duke"):
        raise UserError(_WITHDRAWN)
    if name not in OPTIONS:
        raise UserError(f"there is no data set {name!r}{nearest(name, OPTIONS)}")
    for option in options:
        if option not in OPTIONS[name]:
            valid = nearest(option, OPTIONS[name]) or "; it takes none"
            raise UserError(f"{name}: it has no option {option!r}{valid}")
    root = Path(root).expanduser()
    if name in THROUGH_TORCHREID:
        return _through_torchreid(name, root, **options)
    readers = {"market1501": _market1501, "msmt17": _msmt17, "cuhk03": _cuhk03}
    return readers[name](root, **options)


# Not torchreid's class: it tries to download from a dead address if it does not find a file.
def _market1501(root: Path) -> Splits:
    mark, inner = MARKET_FOLDERS["train"], "Market-1501-v15.09.15"
    places = (f"market1501/{inner}", "market1501", inner, ".")
    return read_market(_locate("market1501", root, [f"{place}/{mark}" for place in places]).parent)


def _msmt17(root: Path, *, validation: bool = True) -> Splits:
    places = ("msmt17/MSMT17_V1", "msmt17/MSMT17_V2", "MSMT17_V1", "MSMT17_V2", ".")
    file = _locate("msmt17", root, [f"{place}/{LISTS['train']}" for place in places])
    return _checked(*read_msmt17(file.parent, validation=validation))


# Not torchreid's class: it needs cuhk-03.mat even where all is extracted, and reads images by the
# paths of the machine that extracted them.
def _cuhk03(
    root: Path, *, labeled: bool = False, classic_split: bool = False, split_id: int = 0
) -> Splits:
    boxes = "labeled" if labeled else "detected"
    lists = f"splits_{'classic' if classic_split else 'new'}_{boxes}.json"
    market = [] if classic_split else [f"{boxes}/{MARKET_FOLDERS['train']}"]
    places = [f"cuhk03/{lists}", lists, *(f"cuhk03-np/{place}" for place in market), *market]
    found = _locate("cuhk03", root, places, _EXTRACT)
    splits = _cuhk03_splits(found) if found.name == lists else [None]
    if not 0 <= split_id < len(splits):
        raise UserError(f"{found}: split_id {split_id}: wanted one from 0 to {len(splits) - 1}")
    chosen = splits[split_id]
    if chosen is None:
        return read_market(found.parent)
    folder = found.parent / f"images_{boxes}"
    return _checked(*([_cuhk03_record(folder, name) for name in part] for part in chosen))


def _cuhk03_splits(file: Path) -> Sequence[list[list[str]] | None]:
    try:
        return [
            [[PureWindowsPath(path).name for path, *_ in split[part]] for part in Splits._fields]
            for split in json.loads(file.read_bytes())
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file}: not a list of splits written by torchreid ({error})") from error


def _cuhk03_record(folder: Path, name: str) -> Record:
    match = _CUHK03_NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{folder / name}: wanted a name such as 1_001_1_01.png")
    return Record(str(folder / name), *match.groups())


def _through_torchreid(name: str, root: Path, *, split_id: int = 0) -> Splits:
    """Let torchreid read a set; it draws the splits of some at random and keeps them on disk."""
    wanted = f"wanted torchreid's layout, {', '.join(THROUGH_TORCHREID[name])}"
    for path in THROUGH_TORCHREID[name]:  # else torchreid would download
        if not (root / path).exists():
            raise UserError(f"{root / path}: there is no such file or folder; {wanted}, in {root}")
    if split_id < 0:
        raise UserError(f"{name}: split_id {split_id}: wanted a number from 0")
    try:
        with redirect_stdout(StringIO()), _fixed_generators():
            found = torchreid.data.ImageDataManager(
                root=str(root), sources=name, split_id=split_id, use_gpu=False, workers=0
            ).train_loader.dataset
    except Exception as error:  # unexpected names or counts may raise anything
        raise UserError(f"{root}: torchreid cannot read {name} ({error}); {wanted}") from error
    train, test = _records(found.train, "train"), _records(found.query + found.gallery, "test")
    if name == "cuhksysu":  # for training only: query and gallery are copies with camera 0
        return _checked([record._replace(camera=None) for record in train], [], [])
    query, gallery = test[: len(found.query)], test[len(found.query) :]
    with located(f"{name}: if its folder was moved, move torchreid's splits.json elsewhere"):
        return _checked([] if name == "sensereid" else train, query, gallery)  # is a copy of these


def _records(items: Sequence[tuple[Any, ...]], half: str) -> list[Record]:
    """Return the identities in the order of their images.

    torchreid numbers those of some sets in the order of a Python set: differently in every run.
    """
    names: dict[int, str] = {}
    for _, identity, *_ in sorted(items, key=itemgetter(0)):
        names.setdefault(identity, f"{half}_{len(names):05d}")
    return [Record(path, names[identity], str(camera + 1)) for path, identity, camera, *_ in items]


@contextmanager
def _fixed_generators() -> Iterator[None]:
    """Seed the generators with 0 inside, and restore them at the end."""
    states = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _locate(name: str, root: Path, places: Sequence[str], advice: str = "") -> Path:
    found = [root / place for place in places if (root / place).exists()]
    if not found:
        raise UserError(
            f"{root}: no {name} in it; wanted one of {', '.join(places)}; get it from its authors, "
            f"nothing is downloaded{advice}"
        )
    if len(found) > 1:
        folders = " and ".join(str(path.parent) for path in found)
        raise UserError(f"{root}: {name} is in {folders}; give one of them as root")
    return found[0]


def _checked(train: list[Record], query: list[Record], gallery: list[Record]) -> Splits:
    require_files(record for part in (train, query, gallery) for record in part)
    return Splits(sorted(train), sorted(query), sorted(gallery))
