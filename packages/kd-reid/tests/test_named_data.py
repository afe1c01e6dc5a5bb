"""Public data sets have the numbers that their authors publish, and torchreid's traps are shut."""

import json
import os
import random
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kd_core.errors import UserError
from scipy.io import savemat

pytest.importorskip("torchreid")
from kd_reid import torchreid
from kd_reid.data import identities, named
from kd_reid.data.folders import MARKET_FOLDERS
from kd_reid.data.named import OPTIONS, THROUGH_TORCHREID, read_named
from kd_reid.data.records import Splits, by_identity, relabel

CUHK03 = {"detected": (7365, 1400, 5332), "labeled": (7368, 1400, 5328)}
MSMT17 = {"train": 30248, "val": 2373, "query": 11659, "gallery": 82161}


def touch(folder, names):
    """Make empty images; links to a few files, which are made and removed in less time."""
    for parent in {(folder / name).parent for name in names}:
        parent.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        if number % 1000 == 0:
            first = folder / name
            first.touch()
        elif not (folder / name).exists():
            os.link(first, folder / name)
    return folder


def statistics(splits):
    """Images and identities of each part, and cameras of all."""
    parts = [(len(part), len(by_identity(part))) for part in splits]
    return *parts, len({record.camera for part in splits for record in part})


def market_names(count, people):
    """Name images of Market-1501: of each person in turn, by each camera in turn."""
    return [
        f"{people[n % len(people)]}_c{n // len(people) % 6 + 1}s1_{n:06d}_00.jpg"
        for n in range(count)
    ]


def market(folder, people=(4, 3), train=48, query=9, gallery=18, distractors=7, junk=5):
    """Write Market-1501: odd numbers are people to train on, even ones to search for."""
    odd, even = ([f"{2 * n + start:04d}" for n in range(people[start - 1])] for start in (1, 2))
    touch(folder / "bounding_box_train", market_names(train, odd))
    touch(folder / "query", market_names(query, even))
    others = market_names(distractors, ["0000"]) + market_names(junk, ["-1"])
    touch(folder / "bounding_box_test", market_names(gallery, even) + others)
    return folder


def msmt17(folder, halves=("train", "test"), people=(4, 3), sizes=(20, 8, 12, 18)):
    """Write MSMT17: its lists and its images."""
    for images, count, names in zip(
        halves, people, (list(MSMT17)[:2], list(MSMT17)[2:]), strict=True
    ):
        (folder / images).mkdir(parents=True)
        number = 0
        for name, size in zip(names, sizes[:2] if "train" in names else sizes[2:], strict=True):
            lines = [
                f"{n % count:04d}/{n % count:04d}_{n:03d}_{n // count % 15 + 1:02d}_0303morning_"
                f"0015_0.jpg {n % count}"
                for n in range(number, number + size)
            ]
            number += size
            (folder / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
            touch(folder / images, [line.split()[0] for line in lines])
    return folder


def cuhk03_names(people=(767, 700), sizes=CUHK03["detected"]):
    """Name CUHK03's images, of (pair, person), number of the image: 1 to 5 are by one camera."""
    pairs = enumerate((843, 440, 77, 58, 49), 1)
    everybody = [f"{pair}_{n + 1:03d}" for pair, count in pairs for n in range(count)]
    train, test = everybody[: people[0]], everybody[people[0] : sum(people)]
    numbers = range(1, 11), (1, 6), (2, 3, 4, 5, 7, 8, 9, 10)
    return [
        [f"{name}_{1 + (n > 5)}_{n:02d}.png" for n in of_part for name in who][:size]
        for who, of_part, size in zip((train, test, test), numbers, sizes, strict=True)
    ]


def cuhk03_lists(folder, boxes, *splits, protocol="new"):
    """Write what torchreid makes from cuhk-03.mat, on another machine."""
    names = sorted({name for split in splits for part in split for name in part})
    touch(folder / f"images_{boxes}", names)
    label = {name[:5]: n for n, name in enumerate(names[::-1])}
    lists = [
        {
            part: [[f"/x/images_{boxes}/{name}", label[name[:5]], int(name[6]) - 1] for name in of]
            for part, of in zip(Splits._fields, split, strict=True)
        }
        for split in splits
    ]
    (folder / f"splits_{protocol}_{boxes}.json").write_text(json.dumps(lists))
    return folder


def cuhk03_np(folder, names):
    """Write CUHK03 in the layout of Market-1501, as Zhong et al. hand it out."""
    number = {who: n for n, who in enumerate(sorted({name[:5] for of in names for name in of}), 1)}
    for part, of in zip(MARKET_FOLDERS.values(), names, strict=True):
        touch(folder / part, [f"{number[n[:5]]:04d}_c{n[6]}_{int(n[8:10])}.png" for n in of])
    return folder


class TestOfficialStatistics:
    @pytest.fixture(autouse=True)
    def listed(self, monkeypatch):
        """Paths by folder; no file is made: smaller tests show that each is looked for."""
        paths = defaultdict(list)

        def name(folder, names):
            folder.mkdir(parents=True, exist_ok=True)
            paths[folder] += [f"{folder}/{name}" for name in names]

        monkeypatch.setitem(globals(), "touch", name)
        monkeypatch.setattr(identities, "list_images", lambda folder, _: sorted(paths[folder]))
        return paths

    @pytest.fixture(autouse=True)
    def checked(self, monkeypatch):
        """Records whose files are looked for."""
        records = []
        monkeypatch.setattr(named, "require_files", records.extend)
        return records

    def test_market1501(self, tmp_path, listed):
        sizes = dict(train=12936, query=3368, gallery=13115, distractors=2798, junk=3819)
        folder = market(tmp_path / "market1501/Market-1501-v15.09.15", (751, 750), **sizes)
        assert len(listed[folder / "bounding_box_test"]) == 19732
        splits = read_named("market1501", tmp_path)
        assert statistics(splits) == ((12936, 751), (3368, 750), (15913, 751), 6)
        assert len(by_identity(splits.gallery)["0000"]) == 2798

    def test_msmt17(self, tmp_path, checked):
        msmt17(tmp_path / "MSMT17_V1", people=(1041, 3060), sizes=(*MSMT17.values(),))
        splits = read_named("msmt17", tmp_path)
        assert statistics(splits) == ((32621, 1041), (11659, 3060), (82161, 3060), 15)
        assert len(checked) == 126441
        assert not by_identity(splits.train).keys() & by_identity(splits.query).keys()
        assert len(read_named("msmt17", tmp_path, validation=False).train) == 30248

    @pytest.mark.parametrize("boxes", CUHK03)
    def test_cuhk03_as_torchreid_prepares_it(self, boxes, tmp_path, checked):
        cuhk03_lists(tmp_path, boxes, cuhk03_names(sizes=CUHK03[boxes]))
        splits = read_named("cuhk03", tmp_path, labeled=boxes == "labeled")
        train, query, gallery = CUHK03[boxes]
        assert statistics(splits) == ((train, 767), (query, 700), (gallery, 700), 2)
        assert len(checked) == train + query + gallery

    def test_cuhk03_as_zhong_et_al_hand_it_out(self, tmp_path):
        cuhk03_np(tmp_path / "cuhk03-np/labeled", cuhk03_names(sizes=CUHK03["labeled"]))
        splits = read_named("cuhk03", tmp_path, labeled=True)
        assert statistics(splits) == ((7368, 767), (1400, 700), (5328, 700), 2)


class TestAgainstTorchreid:
    """torchreid's own classes, where nothing is in their way, read the same."""

    @pytest.fixture(params=["market1501", "msmt17", "cuhk03"])
    def name(self, request, tmp_path):
        if request.param == "market1501":
            market(tmp_path / "market1501/Market-1501-v15.09.15")
        elif request.param == "msmt17":
            msmt17(tmp_path / "msmt17/MSMT17_V2", ("mask_train_v2", "mask_test_v2"))
        else:
            folder = tmp_path / "cuhk03"
            for boxes in CUHK03:
                cuhk03_lists(folder, boxes, cuhk03_names((9, 4), (80, 8, 30)))
                cuhk03_lists(folder, boxes, *[cuhk03_names((9, 4))] * 20, protocol="classic")
                (folder / f"cuhk03_new_protocol_config_{boxes}.mat").touch()
            touch(folder, ["cuhk03_release/cuhk-03.mat"])
        return request.param

    def test_images_identities_and_cameras_are_equal(self, name, tmp_path):
        ours = read_named(name, tmp_path, **({"validation": False} if name == "msmt17" else {}))
        theirs = torchreid.data.ImageDataManager(
            root=str(tmp_path), sources=name, use_gpu=False, workers=0, batch_size_train=1
        ).train_loader.dataset
        for part, items in zip(ours, (theirs.train, theirs.query, theirs.gallery), strict=True):
            items = sorted((Path(path).name, label, camera) for path, label, camera, _ in items)
            assert [Path(record.path).name for record in part] == [item[0] for item in items]
            assert [int(record.camera) for record in part] == [item[2] + 1 for item in items]
            people = {(record.identity, item[1]) for record, item in zip(part, items, strict=True)}
            assert len(people) == len(by_identity(part)) == len({item[1] for item in items})
        if name == "msmt17":
            assert relabel(ours.train)[0] == [label for _, label, *_ in sorted(theirs.train)]


class TestPlaces:
    @pytest.mark.parametrize(
        "place", ["market1501/Market-1501-v15.09.15", "market1501", "Market-1501-v15.09.15", "."]
    )
    def test_market1501(self, place, tmp_path):
        market(tmp_path / place)
        assert statistics(read_named("market1501", tmp_path)) == ((48, 4), (9, 3), (25, 4), 6)

    @pytest.mark.parametrize("place", ["msmt17/MSMT17_{}", "MSMT17_{}", "."])
    @pytest.mark.parametrize("halves", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
    def test_msmt17(self, place, halves, tmp_path):
        folder = msmt17(tmp_path / place.format("V1" if halves[0] == "train" else "V2"), halves)
        splits = read_named("msmt17", tmp_path)
        assert statistics(splits) == ((28, 4), (12, 3), (18, 3), 10)
        first = folder / halves[0] / "0000/0000_000_01_0303morning_0015_0.jpg"
        assert splits.train[0] == (str(first), "train_0000", "1")

    def test_two_versions_of_msmt17_are_not_confused(self, tmp_path):
        msmt17(tmp_path / "MSMT17_V1")
        folder = msmt17(tmp_path / "MSMT17_V2", ("mask_train_v2", "mask_test_v2"))
        with pytest.raises(UserError, match=r"MSMT17_V1 and .*MSMT17_V2; give one of them"):
            read_named("msmt17", tmp_path)
        assert len(read_named("msmt17", folder).train) == 28

    @pytest.mark.parametrize("place", ["cuhk03", "."])
    def test_cuhk03_as_torchreid_prepares_it(self, place, tmp_path):
        folder = cuhk03_lists(tmp_path / place, "labeled", cuhk03_names((9, 4), (80, 8, 30)))
        splits = read_named("cuhk03", tmp_path, labeled=True)
        path = str(folder / "images_labeled/1_001_1_01.png")  # not where torchreid wrote it
        assert splits.train[0] == (path, "1_001", "1")

    @pytest.mark.parametrize("place", ["cuhk03-np/detected", "detected"])
    def test_cuhk03_as_zhong_et_al_hand_it_out(self, place, tmp_path):
        cuhk03_np(tmp_path / place, cuhk03_names((9, 4), (80, 8, 30)))
        splits = read_named("cuhk03", tmp_path)
        assert statistics(splits) == ((80, 9), (8, 4), (30, 4), 2)

    def test_cuhk03_has_classic_splits(self, tmp_path):
        several = [cuhk03_names((people, 4), (60, 8, 8)) for people in (6, 7, 8)]
        cuhk03_lists(tmp_path, "detected", *several, protocol="classic")
        splits = read_named("cuhk03", tmp_path, classic_split=True, split_id=2)
        assert statistics(splits) == ((60, 8), (8, 4), (8, 4), 2)


def viper(root):
    touch(root / "viper/VIPeR", [f"cam_{side}/{n:03d}_0.bmp" for side in "ab" for n in range(6)])


def cuhk01(root):
    touch(root / "cuhk01/campus", [f"{n:04d}{k:03d}.png" for n in range(1, 5) for k in range(1, 5)])


def cuhk02(root):
    names = [f"P{pair}/cam{side}/{n:03d}_1.png" for pair in range(1, 6) for side in (1, 2)
             for n in range(3)]  # fmt: skip
    touch(root / "cuhk02/Dataset", names)


def cuhksysu(root):
    names = [f"p{person}_s{scene}_1.jpg" for person in range(5) for scene in range(2)]
    touch(root / "cuhksysu/cropped_images", names)


def grid(root):
    probe = [f"probe/{n:04d}_1_{n}.jpeg" for n in range(1, 251)]
    gallery = [f"gallery/{n:04d}_2_{n}.jpeg" for n in range(1, 251)]
    distractors = [f"gallery/0000_5_{n}.jpeg" for n in range(10)]
    folder = touch(root / "grid/underground_reid", probe + gallery + distractors)
    fold = {"a": 0, "b": 0, "train": np.arange(1, 126)[None]}
    cells = np.empty((1, 10), dtype=object)
    cells[0, :] = [fold] * 10
    savemat(folder / "features_and_partitions.mat", {"trainIdxAll": cells})


def ilids(root):
    names = [f"{person:04d}{n:03d}.jpg" for person in range(119) for n in range(1, 5)]
    touch(root / "ilids/i-LIDS_Pedestrian/Persons", names)


def prid(root):
    names = [f"cam_{side}/person_{n:04d}.png" for side in "ab" for n in range(1, 750)]
    touch(root / "prid2011/prid_2011/single_shot", names)


def sensereid(root):
    touch(root / "sensereid/SenseReID/test_probe", [f"{n:05d}_0.jpg" for n in range(3)])
    touch(root / "sensereid/SenseReID/test_gallery", [f"{n:05d}_1.jpg" for n in range(5)])


SMALL = {  # images and identities, to train on, to search for and to find; cameras
    viper: ((6, 3), (3, 3), (3, 3), 2),
    cuhk01: ((8, 2), (4, 2), (4, 2), 2),
    cuhk02: ((24, 12), (3, 3), (3, 3), 10),
    cuhksysu: ((10, 5), (0, 0), (0, 0), 1),
    grid: ((250, 125), (125, 125), (135, 126), 3),
    ilids: ((236, 59), (60, 60), (60, 60), 4),
    prid: ((200, 100), (100, 100), (649, 649), 2),
    sensereid: ((0, 0), (3, 3), (5, 5), 2),
}


class TestThroughTorchreid:
    def test_all_are_tried(self):
        assert {write.__name__ for write in SMALL} == THROUGH_TORCHREID.keys()
        assert {*THROUGH_TORCHREID, "market1501", "msmt17", "cuhk03"} == OPTIONS.keys()

    @pytest.mark.parametrize("write", SMALL, ids=lambda write: write.__name__)
    def test_a_set_is_read_in_silence(self, write, tmp_path, capsys):
        write(tmp_path)
        before = random.getstate(), np.random.get_state()[1].tolist()
        splits = read_named(write.__name__, tmp_path)
        assert statistics(splits) == SMALL[write]
        assert all(part == sorted(part) for part in splits)
        assert not by_identity(splits.train).keys() & by_identity(splits.gallery).keys()
        assert by_identity(splits.query).keys() <= by_identity(splits.gallery).keys()
        assert read_named(write.__name__, tmp_path) == splits
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before
        assert capsys.readouterr().out == ""

    def test_random_splits_do_not_depend_on_what_was_drawn_before(self, tmp_path):
        found = []
        for folder in ("one", "other"):
            viper(tmp_path / folder)
            splits = read_named("viper", tmp_path / folder, split_id=3)
            found.append([Path(record.path).name for part in splits for record in part])
            assert {record.camera for record in splits.query} == {"2"}  # as of each odd split
            np.random.rand()
        assert found[0] == found[1]

    @pytest.mark.parametrize("shift", [0, 1, 2])
    def test_names_do_not_depend_on_torchreid_s_numbers(self, shift, tmp_path, monkeypatch):
        cuhk02(tmp_path)
        items = [(f"{tmp_path}/{n}.png", (n + shift) % 3, n % 2, 0) for n in range(6)]
        found = SimpleNamespace(train=items, query=items[:3], gallery=items[3:])
        manager = SimpleNamespace(train_loader=SimpleNamespace(dataset=found))
        monkeypatch.setattr(torchreid.data, "ImageDataManager", lambda **_: manager)
        touch(tmp_path, [f"{n}.png" for n in range(6)])
        train = read_named("cuhk02", tmp_path).train
        numbers = [int(record.identity.removeprefix("train_")) for record in train]
        assert numbers == [0, 1, 2, 0, 1, 2]

    def test_a_folder_that_moved_is_told(self, tmp_path):
        viper(tmp_path / "old")
        read_named("viper", tmp_path / "old")
        (tmp_path / "old").rename(tmp_path / "new")
        with pytest.raises(UserError, match=r"move torchreid's splits\.json .*no such image"):
            read_named("viper", tmp_path / "new")

    def test_what_torchreid_stumbles_over_is_told(self, tmp_path):
        cuhk02(tmp_path)
        touch(tmp_path / "cuhk02/Dataset/P5/cam1", ["anna.png"])
        with pytest.raises(UserError, match=r"torchreid cannot read cuhk02 .*anna.*wanted torch"):
            read_named("cuhk02", tmp_path)
        viper(tmp_path)
        for split_id in (-1, 20):
            with pytest.raises(UserError, match=f"viper.*{split_id}"):
                read_named("viper", tmp_path, split_id=split_id)


class TestRefusals:
    @pytest.mark.parametrize("name", ["dukemtmcreid", "dukemtmcvidreid", "DukeMTMC-reID"])
    def test_duke_is_not_offered(self, name, tmp_path):
        with pytest.raises(UserError, match="not offered: its authors withdrew it in 2019"):
            read_named(name, tmp_path)

    def test_other_names_are_unknown(self, tmp_path):
        with pytest.raises(UserError, match="no data set 'Market1501'; did you mean 'market1501'"):
            read_named("Market1501", tmp_path)
        with pytest.raises(UserError, match="no data set 'ucf'; valid names: cuhk01, cuhk02"):
            read_named("ucf", tmp_path)

    @pytest.mark.parametrize("name", OPTIONS)
    def test_nothing_is_downloaded(self, name, tmp_path):
        with pytest.raises(UserError, match=f"no {name} in it|no such file or folder"):
            read_named(name, tmp_path)
        assert not list(tmp_path.iterdir())  # torchreid would begin by making the set's folder

    def test_an_option_of_another_set_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="market1501: it has no option 'split_id'; it takes"):
            read_named("market1501", tmp_path, split_id=0)
        with pytest.raises(UserError, match="no option 'label'; did you mean 'labeled'"):
            read_named("cuhk03", tmp_path, label=True)

    @pytest.mark.parametrize(
        ("line", "text"),
        [
            ("0000/0000_000_01_x.jpg", "list_query.txt:1: wanted a line"),
            ("0000/0000_01.jpg 0", "list_query.txt:1: wanted a line"),
            ("0000/0000_099_01_x.jpg 0", "0000_099_01_x.jpg: there is no such image"),
        ],
    )
    def test_a_list_that_is_not_msmt17_s(self, line, text, tmp_path):
        (msmt17(tmp_path) / "list_query.txt").write_text(line)
        with pytest.raises(UserError, match=re.escape(text)):
            read_named("msmt17", tmp_path)

    def test_what_msmt17_lacks_is_told(self, tmp_path):
        (msmt17(tmp_path) / "list_gallery.txt").unlink()
        with pytest.raises(UserError, match=r"list_gallery\.txt: there is no such file"):
            read_named("msmt17", tmp_path)
        (tmp_path / "train").rename(tmp_path / "trian")
        with pytest.raises(UserError, match="beside the lists, got neither"):
            read_named("msmt17", tmp_path)

    def test_lists_that_are_not_cuhk03_s(self, tmp_path):
        file = tmp_path / "splits_new_detected.json"
        for text in ("{", "[1]", '[{"train": []}]', '[{"train": [1], "query": [], "gallery": []}]'):
            file.write_text(text)
            with pytest.raises(UserError, match="not a list of splits written by torchreid"):
                read_named("cuhk03", tmp_path)
        file.write_text('[{"train": [["anna.png", 0, 0]], "query": [], "gallery": []}]')
        with pytest.raises(UserError, match=r"anna\.png: wanted a name such as 1_001_1_01\.png"):
            read_named("cuhk03", tmp_path)

    def test_cuhk03_has_only_the_splits_that_it_has(self, tmp_path):
        cuhk03_np(tmp_path / "detected", cuhk03_names((9, 4), (80, 8, 30)))
        with pytest.raises(UserError, match="split_id 1: wanted one from 0 to 0"):
            read_named("cuhk03", tmp_path, split_id=1)
        with pytest.raises(UserError, match=r"wanted one of cuhk03/splits_classic_detected.*h5py"):
            read_named("cuhk03", tmp_path, classic_split=True)
        (tmp_path / "splits_classic_detected.json").write_text("[]")
        with pytest.raises(UserError, match="split_id 0"):
            read_named("cuhk03", tmp_path, classic_split=True)
