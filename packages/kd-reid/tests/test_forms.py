"""Sets in the forms that people have: which folders are parts, who is who, what is refused."""

import re

import pytest
from kd_core.errors import UserError

pytest.importorskip("torchreid")
from kd_reid.data.folders import read_set, read_splits
from kd_reid.data.names import camera_meaning, identity_meaning
from kd_reid.data.parts import part_in_name
from kd_reid.data.reading import Reading
from kd_reid.data.records import Record, in_order, relabel, split

VERI = {
    "image_train": ["0001_c001_00016450_0.jpg", "0003_c002_00016450_0.jpg"],
    "image_query": ["0002_c002_00030600_0.jpg"],
    "image_test": ["0002_c002_00030600_0.jpg", "0002_c003_00030605_1.jpg"],
}
IDENTITIES = {
    "train": ["1/a.jpg", "2/a.jpg"],
    "query": ["3/a.jpg", "4/a.jpg"],
    "gallery": ["3/b.jpg", "4/b.jpg"],
}


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def make(root, parts):
    return touch(root, *(f"{part}/{name}" for part, names in parts.items() for name in names))


def who(splits):
    """Return identity and camera of the images, by part."""
    return [[record[1:] for record in part] for part in splits]


def csv(tmp_path, text, name="list.csv", **how):
    file = tmp_path / name
    file.write_text(text, **{"encoding": "utf-8", **how})
    return file


class TestMeaning:
    @pytest.mark.parametrize(
        "names",
        [
            ("7", "0007", "7.0", " 07", "+7", "7."),
            ("-1", "-1.0", "-01"),
            ("0", "0000", "-0"),
            ("anna_7", "anna_007"),
            ("Jos\u00e9", "Jose\u0301"),
        ],
    )
    def test_one_identity_is_written_in_several_ways(self, names):
        assert len(set(map(identity_meaning, names))) == 1

    def test_other_identities_stay_apart(self):
        names = ["7", "70", "7.5", "-7", "anna7", "bob7", "00a1", "0a01", "1_01", "1_1", "Anna7"]
        assert len(set(map(identity_meaning, names))) == len(names)

    def test_one_camera_is_written_in_several_ways(self):
        names = ["1", "01", "c1", "C001", "cam_01", "Camera 1", "cam-1", "1.0"]
        assert set(map(camera_meaning, names)) == {"1"}
        names = ["1", "10", "c2", "door", "c1s2", "d1"]
        assert len(set(map(camera_meaning, names))) == len(names)
        assert camera_meaning("c01s02") == camera_meaning("c1s2")

    def test_very_long_numbers_are_names_too(self):
        assert identity_meaning("0" + "1" * 5000) == "1" * 5000


class TestParts:
    def test_veri_is_read_by_its_names(self, tmp_path, capsys):
        found = who(read_splits(make(tmp_path, VERI)))
        assert found[0] == [("0001", "001"), ("0003", "002")]
        assert found[1] == [("0002", "002")]
        assert found[2] == [("0002", "002"), ("0002", "003")]
        assert capsys.readouterr().err == ""

    def test_veri_s_lists_say_which_images_count(self, tmp_path, capsys):
        make(tmp_path, {**VERI, "image_test": [*VERI["image_test"], "0009_c003_1.jpg"]})
        (tmp_path / "name_test.txt").write_text("\r\n".join(VERI["image_test"]) + "\r\n")
        assert len(read_splits(tmp_path).gallery) == 2
        assert "name_test.txt: left out 1 images" in capsys.readouterr().err
        (tmp_path / "name_test.txt").write_text("0002_c009_lost.jpg\n")
        with pytest.raises(UserError, match=r"1 of 1 images are not there, such as '0002_c009"):
            read_splits(tmp_path)

    def test_veri_s_labels_must_agree_with_its_names(self, tmp_path):
        label = '<Item imageName="{}" vehicleID="{}" cameraID="{}" colorID="1"/>'
        name = VERI["image_train"][0]
        file = make(tmp_path, VERI) / "train_label.xml"
        head = '<?xml version="1.0" encoding="gb2312"?>\n'
        file.write_text(head + label.format(name, "0001", "c001"))
        read_splits(tmp_path)
        for wrong in (("0005", "c001"), ("0001", "c002")):
            file.write_text(head + label.format(name, *wrong))
            with pytest.raises(UserError, match=r"train_label\.xml says identity .* correct one"):
                read_splits(tmp_path)

    def test_folders_of_identities_in_parts(self, tmp_path):
        found = read_splits(make(tmp_path, IDENTITIES))
        people = [[identity for identity, _ in part] for part in who(found)]
        assert people == [["1", "2"], ["3", "4"], ["3", "4"]]
        assert {camera for part in who(found) for _, camera in part} == {None}

    def test_queries_are_chosen_of_a_test_part(self, tmp_path):
        names = ["3/c1_a.jpg", "3/c2_a.jpg", "4/c1_a.jpg", "4/c1_b.jpg"]
        make(tmp_path, {"Train": IDENTITIES["train"], "Test": names})
        with pytest.raises(UserError, match=r"a\.jpg: 'c.*finds no camera"):
            read_splits(tmp_path, camera=r"c(\d)")
        assert [len(part) for part in read_splits(tmp_path)] == [2, 2, 2]
        make(tmp_path / "s", {"train": ["1/c1.jpg", "2/c1.jpg"], "test": names})
        assert who(read_splits(tmp_path / "s", camera=r"c(\d)"))[1] == [("3", "1")]
        assert len(read_splits(tmp_path / "s", camera=r"c(\d)", same_camera=True).query) == 2

    @pytest.mark.parametrize("gallery", ["gallery", "test", "bounding_box_test", "image_test"])
    @pytest.mark.parametrize("train", ["train", "training", "bounding_box_train"])
    def test_market_s_names_may_be_in_any_part(self, tmp_path, train, gallery):
        files = [f"{n:04}_c{n}s1_00.jpg" for n in range(1, 4)]
        parts = {train: files[:2], "query": files[2:], gallery: ["0003_c2.jpg", "0003/0003_c3.jpg"]}
        make(tmp_path, {**parts, gallery: parts[gallery][:1]})
        assert who(read_splits(tmp_path))[2] == [("0003", "2")]

    def test_names_as_in_market_1501_say_the_camera_in_folders_too(self, tmp_path, capsys):
        names = ["0003/0003_c1s1_1.jpg", "0003/0003_c2s1_1.jpg"]
        assert who(read_splits(touch(tmp_path, *names), train_fraction=0))[1] == [("0003", "1")]
        touch(tmp_path, "0004/x.jpg")
        assert read_splits(tmp_path, train_fraction=0).query[0].camera is None
        assert "only 2 of 3 names of images say one" in capsys.readouterr().err
        with pytest.raises(UserError, match="its folder says identity '0005', its name '0003'"):
            read_splits(touch(tmp_path, "0005/0003_c1s1_1.jpg"))

    def test_a_set_without_parts_may_have_names_as_in_market_1501(self, tmp_path):
        touch(tmp_path, "0003_c1s1_1.jpg", "0003_c2s1_1.jpg")
        assert who(read_splits(tmp_path, train_fraction=0))[1:] == [
            [("0003", "1")],
            [("0003", "2")],
        ]

    def test_a_set_for_evaluation_has_no_training_part(self, tmp_path):
        make(tmp_path, {part: IDENTITIES[part] for part in ("query", "gallery")})
        assert [len(part) for part in read_splits(tmp_path)] == [0, 2, 2]

    @pytest.mark.parametrize(
        ("folders", "text"),
        [
            (["train", "train_all", "query", "gallery"], "train_all: folders named like parts"),
            (["train", "query", "gallery", "test"], "gallery, test: folders named like parts"),
            (["train", "Train", "query", "gallery"], "Train, train: folders named like parts"),
            (["my_train", "my_test"], "my_test, my_train: folders named like parts"),
            (["anna", "bob", "val"], "val: folders named like parts"),
            (["train", "anna"], "give this folder as the source"),
            (["train", "gallery"], "query: there is no such folder"),
            (["query", "train"], "gallery: there is no such folder"),
            (
                ["data/train", "data/query", "data/gallery"],
                "data is the set, give it",
            ),
            (["train/query", "query", "gallery"], "train/query: a folder named like a part"),
        ],
    )
    def test_folders_named_like_parts_are_never_identities(self, tmp_path, folders, text):
        touch(tmp_path, *(f"{folder}/{person}/1.jpg" for folder in folders for person in "ab"))
        with pytest.raises(UserError, match=re.escape(text)) as caught:
            read_splits(tmp_path)
        assert "\n" not in str(caught.value)

    def test_the_user_says_which_folder_is_which_part(self, tmp_path):
        touch(tmp_path, *(f"{part}/{who}/1.jpg" for part in ("my_train", "a", "b") for who in "xy"))
        parts = {"train": "my_train", "query": "a", "gallery": "b"}
        assert [len(part) for part in read_splits(tmp_path, parts=parts)] == [2, 2, 2]
        with pytest.raises(UserError, match=r"my_trian: there is no such folder; did you mean"):
            read_splits(tmp_path, parts={**parts, "train": "my_trian"})
        with pytest.raises(UserError, match=r"parts.galery: .*did you mean 'gallery'"):
            read_splits(tmp_path, parts={"galery": "b"})

    def test_other_folders_are_left_out_with_a_word(self, tmp_path, capsys):
        make(tmp_path, {**IDENTITIES, "val": ["9/x.jpg"], "docs": ["x.jpg"], "gt_bbox": ["x.jpg"]})
        assert len(read_splits(tmp_path).train) == 2
        assert "left out 2 folders that are not a part of the set (docs, val)" in (
            capsys.readouterr().err
        )

    def test_beside_the_parts_of_market_1501_others_are_left_out(self, tmp_path, capsys):
        names = ("bounding_box_train", "query", "bounding_box_test", "bounding_box_train_camstyle")
        make(tmp_path, {name: ["0001_c1.jpg"] for name in names})
        assert len(read_splits(tmp_path).train) == 1
        assert "left out 1 folders" in capsys.readouterr().err

    def test_a_folder_may_be_called_like_a_list(self, tmp_path):
        root = make(tmp_path / "set.csv", IDENTITIES)
        assert len(read_splits(root).train) == 2

    def test_numbered_names_are_identities(self):
        assert [part_in_name(name) for name in ("train_0001", "test7", "anna")] == [None] * 3
        assert part_in_name("mask_train_v2") == "train"

    def test_folders_of_cameras_are_not_identities(self, tmp_path):
        touch(tmp_path, *(f"cam{c}/person{p}_1.jpg" for c in "12" for p in "34"))
        with pytest.raises(UserError, match=r"named like cameras are not identities.*--identity"):
            read_splits(tmp_path)
        how = {"identity": r"person(\d)", "camera": r"cam(\d)", "train_fraction": 0}
        assert who(read_splits(tmp_path, **how))[1] == [("3", "1"), ("4", "1")]
        with pytest.raises(UserError, match="finds no identity"):
            read_splits(touch(tmp_path, "cam1/x.jpg"), **how)

    def test_msmt17_is_read_by_its_lists(self, tmp_path):
        line = "0000/0000_000_0{}_0303morning_0015_0.jpg 0\n"
        make(tmp_path, {"train": ["0000/x.jpg"], "test": ["0000/y.jpg"]})
        for name, camera in (("train", 1), ("val", 2), ("query", 1), ("gallery", 2)):
            (tmp_path / f"list_{name}.txt").write_text(line.format(camera))
        assert who(read_splits(tmp_path))[0] == [("train_0000", "1"), ("train_0000", "2")]
        assert who(read_splits(tmp_path))[2] == [("test_0000", "2")]


class TestNobody:
    def test_nobody_is_trained_on_or_searched_for(self, tmp_path, capsys):
        people = {"train": ["0001_c1.jpg", "0002_c1.jpg"], "query": ["0003_c1.jpg"]}
        nobody = ["-1_c1.jpg", "0000_c1.jpg", "0000_c2.jpg"]
        parts = {part: [*names, *nobody] for part, names in people.items()}
        make(tmp_path, {**parts, "gallery": ["0003_c2.jpg", *nobody]})
        train, query, gallery = who(read_splits(tmp_path))
        assert train == [("0001", "1"), ("0002", "1")]
        assert query == [("0003", "1")]
        assert sorted(gallery) == [("0000", "1"), ("0000", "2"), ("0003", "2")]
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert "1 junk of train, 1 junk of query, 2 distractors of train" in shown
        assert "data.distractors=False" in shown
        assert ("0000", "1") in who(read_splits(tmp_path, distractors=False))[0]

    def test_distractors_of_a_set_without_parts_are_in_the_gallery(self, tmp_path, capsys):
        rows = [f"{who}{n}.jpg,{who}" for who in ("a", "b", "c", "d", "0000", "-1") for n in "12"]
        file = csv(tmp_path, "\n".join(["path,identity", *rows]))
        train, query, gallery = who(read_splits(file, train_fraction=0.5))
        assert sum(name == "0000" for name, _ in gallery) == 2
        assert {name for name, _ in (*train, *query, *gallery)} == {"a", "b", "c", "d", "0000"}
        assert "2 junk of the set, 2 distractors, which are in the gallery" in (
            capsys.readouterr().err
        )

    @pytest.mark.parametrize(("name", "trained"), [("0000", 2), ("00000", 2), ("0", 3)])
    def test_four_zeros_are_nobody_in_folders_too(self, name, trained, tmp_path):
        make(tmp_path, {**IDENTITIES, "train": [*IDENTITIES["train"], f"{name}/a.jpg"]})
        assert len(read_splits(tmp_path).train) == trained
        assert len(read_splits(tmp_path, distractors=False).train) == 3

    def test_a_person_may_have_the_number_0(self, tmp_path):
        file = csv(tmp_path, "path,identity\n" + "".join(f"{n}.jpg,{n // 2}\n" for n in range(8)))
        assert {name for name, _ in who(read_splits(file, train_fraction=0))[1]} == set("0123")


class TestLists:
    ROWS = (("a/1.jpg", "7", "c1"), ("a/2.jpg", "0007", "c02"), ("a/3.jpg", "bob", "1"))

    @pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
    @pytest.mark.parametrize(
        "header",
        [
            ("path", "identity", "camera"),
            ("Path ", " Identity", " Camera"),
            ("img_path", "pid", "camid"),
            ("file", "id", "cam"),
            ("Image", "Id", "CamID"),
        ],
    )
    @pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
    def test_usual_lists_are_read(self, tmp_path, separator, header, mark):
        lines = [separator.join(cells) for cells in (header, *self.ROWS)]
        found = who(read_splits(csv(tmp_path, "\n".join(lines), encoding=mark), train_fraction=0))
        assert found[1] == [("0007", "c1")]
        assert sorted(found[2]) == [("0007", "c02"), ("bob", "c1")]

    def test_a_list_may_end_in_another_way(self, tmp_path):
        file = csv(tmp_path, "path\tidentity\n1.jpg\t7\n2.jpg\t7\n", "list.tsv")
        assert len(read_splits(file, train_fraction=0).query) == 1

    def test_people_that_are_written_in_two_ways_are_one(self, tmp_path, capsys):
        names = [f"{n:04}" for n in range(1, 28)] + ["anna"]
        rows = [
            f"{name}_{n}.jpg,{name.lstrip('0') if n else name}" for name in names for n in (0, 1)
        ]
        file = csv(tmp_path, "\n".join(["path,identity", *rows]))
        splits = read_splits(file, train_fraction=0)
        assert len({record.identity for record in splits.query}) == 28
        assert "27 identities are written in several ways, such as '0001' and '1'" in (
            capsys.readouterr().err
        )

    def test_capitals_alone_make_people_differ_and_this_is_said(self, tmp_path, capsys):
        file = csv(tmp_path, "path,identity\n1.jpg,Anna\n2.jpg,anna\n3.jpg,anna\n")
        assert len(read_splits(file, train_fraction=0).query) == 1
        assert "'Anna' and 'anna' differ in capitals alone" in capsys.readouterr().err

    def test_paths_of_windows_are_found(self, tmp_path):
        touch(tmp_path, "im/a/1.jpg")
        file = csv(tmp_path, "path,identity\nim\\a\\1.jpg,7\n.\\im\\a\\2.jpg,7\n")
        paths = [record.path for part in read_splits(file, train_fraction=0) for record in part]
        assert paths == [str(tmp_path / f"im/a/{n}.jpg") for n in "12"]
        with pytest.raises(UserError, match=r"list\.csv:2: .* an absolute path of Windows"):
            read_splits(csv(tmp_path, "path,identity\nC:\\im\\1.jpg,7\n"))

    def test_its_parts_are_kept(self, tmp_path):
        rows = ["1.jpg,1,Train", "2.jpg,2,train", "3.jpg,3,query", "4.jpg,3,gallery"]
        for last in ("gallery", "test"):
            text = "\n".join(["path,identity,Split", *rows]).replace("gallery", last)
            found = who(read_splits(csv(tmp_path, text), train_fraction=0.1, seed=5))
            assert [[name for name, _ in part] for part in found] == [["1", "2"], ["3"], ["3"]]
        text = "path,identity,split\n1.jpg,1,train\n2.jpg,2,train\n3.jpg,3,test\n4.jpg,3,test\n"
        assert [len(part) for part in read_splits(csv(tmp_path, text))] == [2, 1, 1]

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("path,id,pid\n1.jpg,1,7\n", "'id' and 'pid' may be the identity; name one"),
            ("path,identity,split\n1.jpg,1,trian\n", "'trian' is not known; did you mean 'train'"),
            ("path,identity,split\n1.jpg,1,train\n", "no lines of query"),
            ("path,identity,split\n1.jpg,1,query\n", "no lines of gallery"),
            (
                "path,identity,split\n1.jpg,1,query\n2.jpg,1,test\n3.jpg,1,gallery\n",
                "lines of gallery and of test",
            ),
            ("path,identity\n1.jpg,1,7\n", "list.csv:2: has 3 cells, wanted 2"),
            ("path,identity\na/1.jpg,7\na/../a/1.jpg,8\n", "is listed twice"),
        ],
    )
    def test_what_is_not_clear_is_refused(self, text, error, tmp_path):
        with pytest.raises(UserError, match=re.escape(error)):
            read_splits(csv(tmp_path, text))

    def test_the_user_says_which_column_is_which(self, tmp_path):
        file = csv(tmp_path, "path,id,pid,place\n1.jpg,1,7,a\n2.jpg,2,7,b\n")
        columns = {"identity": "pid", "camera": "Place"}
        found = who(read_splits(file, columns=columns, train_fraction=0))
        assert found[1:] == [[("7", "a")], [("7", "b")]]
        with pytest.raises(UserError, match=r"no column 'plaice'.*did you mean 'place'"):
            read_splits(file, columns={**columns, "camera": "plaice"})

    @pytest.mark.parametrize("name", ["camera", "identity", "parts"])
    def test_what_has_no_effect_is_refused(self, name, tmp_path):
        given = {"train": "x"} if name == "parts" else "(.)"
        with pytest.raises(UserError, match=f"leave {name} out"):
            read_splits(csv(tmp_path, "path,identity\n1.jpg,7\n"), **{name: given})
        with pytest.raises(UserError, match="leave columns out"):
            read_set(touch(tmp_path, "a/1.jpg"), Reading(columns={"path": "x"}))


def test_what_is_chosen_does_not_depend_on_padding():
    """Who is trained on, which images are queries, and in which order all come."""
    found = []
    for form in ("{}", "{:02}", "p{:03}"):
        records = [
            Record(f"/{form.format(who)}/{n}.jpg", form.format(who), form.format(camera))
            for who in (2, 10, 1, 30)
            for n, camera in enumerate((11, 9, 2))
        ]
        splits = split(in_order(records), train_fraction=0.5, seed=3)
        assert relabel(in_order(records))[0] == [n // 3 for n in range(12)]
        number = str.maketrans("", "", "p")
        found.append(
            [[(int(r.identity.translate(number)), r.path[-5]) for r in part] for part in splits]
        )
    assert found[0] == found[1] == found[2]
    assert {image for _, image in found[0][1]} == {"2"}  # of camera 2, the first by number
