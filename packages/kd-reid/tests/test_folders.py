"""A user's own images, or those of Market-1501: who is in them, and how they are split."""

import re
from collections import Counter

import pytest
from kd_core.errors import UserError

pytest.importorskip("torchreid")
from kd_reid.data.folders import read_market, read_set, read_splits, require_files
from kd_reid.data.reading import Reading
from kd_reid.data.records import Record, Splits, by_identity, queries, relabel, split

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c3s2_000001_00.jpg"],
    "query": ["0003_c1s1_000001_00.jpg"],
    "bounding_box_test": [
        "0003_c2s1_000001_00.jpg",
        "0000_c6s1_000001_00.jpg",
        "-1_c1s1_000001_00.jpg",
    ],
}


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def market(root):
    return touch(root, *(f"{folder}/{name}" for folder in MARKET for name in MARKET[folder]))


def read_folder(root, camera=None):
    return read_set(root, Reading(camera=camera)).splits.gallery


read_csv = read_folder


def write(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "list.csv"
    file.write_text(text, encoding=encoding)
    return file


def seen(identity, cameras):
    """Return an image by each of these cameras, of one character."""
    return [Record(f"{identity}{n}", identity, camera) for n, camera in enumerate(cameras)]


class TestMarket:
    def test_names_tell_identity_and_camera(self, tmp_path):
        train, query, _ = read_market(market(tmp_path))
        assert [record[1:] for record in train] == [("0002", "1"), ("0007", "3")]
        assert [record[1:] for record in query] == [("0003", "1")]
        assert train[0].path == str(tmp_path / "bounding_box_train/0002_c1s1_000451_03.jpg")

    def test_junk_is_left_out_and_distractors_stay(self, tmp_path):
        gallery = read_market(market(tmp_path)).gallery
        assert [record[1:] for record in gallery] == [("0000", "6"), ("0003", "2")]

    def test_other_files_are_not_looked_at(self, tmp_path):
        touch(market(tmp_path), "query/Thumbs.db", "readme.txt", "gt_bbox/x.jpg", "query/._1.jpg")
        assert len(read_market(tmp_path).query) == 1

    @pytest.mark.parametrize("folder", MARKET)
    def test_each_folder_is_needed(self, folder, tmp_path):
        market(tmp_path)
        (tmp_path / folder).rename(tmp_path / f"{folder}_")
        with pytest.raises(UserError, match=rf"{folder}: there is no such folder; did you mean"):
            read_splits(tmp_path)
        (tmp_path / folder).mkdir()
        with pytest.raises(UserError, match=rf"{folder}: no images in it"):
            read_splits(tmp_path)

    def test_another_name_is_refused(self, tmp_path):
        touch(market(tmp_path), "query/anna.jpg")
        with pytest.raises(UserError, match=r"anna\.jpg: wanted a name such as 0002_c1s1"):
            read_market(tmp_path)

    def test_it_is_recognised(self, tmp_path):
        assert read_splits(market(tmp_path)) == read_market(tmp_path)
        with pytest.raises(UserError, match="have cameras already"):
            read_splits(tmp_path, camera="c(.)")


class TestFolders:
    def test_a_folder_is_an_identity(self, tmp_path):
        touch(tmp_path, "bob/2.png", "bob/1.JPG", "anna/day/1.jpg", ".x/1.jpg", "anna/n.txt")
        assert read_folder(tmp_path) == [
            Record(str(tmp_path / "anna/day/1.jpg"), "anna", None),
            Record(str(tmp_path / "bob/1.JPG"), "bob", None),
            Record(str(tmp_path / "bob/2.png"), "bob", None),
        ]

    def test_an_expression_finds_the_camera_below_the_identity_s_folder(self, tmp_path):
        root = touch(tmp_path / "cam9", "cam8/cam2_1.jpg", "anna/cam31/5.jpg")
        cameras = [record.camera for record in read_folder(root, r"cam(\d+)")]
        assert cameras == ["31", "2"]

    def test_an_image_without_a_camera_is_refused(self, tmp_path):
        touch(tmp_path, "anna/cam1_1.jpg", "anna/x.jpg")
        for expression in (r"cam(\d)", r"(cam)?\w"):
            with pytest.raises(UserError, match=r"x\.jpg: .* finds no camera in it"):
                read_folder(tmp_path, expression)

    @pytest.mark.parametrize(
        ("expression", "text"),
        [
            ("cam(", "not a regular expression"),
            ("cam.", "got 0 groups"),
            ("(.)(.)", "got 2 groups"),
        ],
    )
    def test_a_useless_expression_is_refused(self, expression, text, tmp_path):
        with pytest.raises(UserError, match=text):
            read_folder(touch(tmp_path, "anna/1.jpg"), expression)

    def test_no_images_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="wanted a folder for each identity"):
            read_folder(touch(tmp_path, "1.jpg", "anna/notes.txt"))
        with pytest.raises(UserError, match=r"nothing: there is no such folder; valid names: anna"):
            read_folder(tmp_path / "nothing")


class TestCsv:
    def test_paths_start_from_its_folder(self, tmp_path):
        file = write(tmp_path, "camera,path,identity,note\nA,b/2.jpg,bob,x\nB,/c/1.jpg,anna,\n")
        assert read_csv(file) == sorted(
            [Record("/c/1.jpg", "anna", "B"), Record(str(tmp_path / "b/2.jpg"), "bob", "A")]
        )

    def test_cameras_may_lack(self, tmp_path):
        assert read_csv(write(tmp_path, "path,identity\n1.jpg,7\n"))[0][1:] == ("7", None)

    def test_a_spreadsheet_s_mark_blanks_and_empty_lines_do_no_harm(self, tmp_path):
        file = write(tmp_path, 'path,identity\r\n"1,a.jpg", 7\r\n\r\n', "utf-8-sig")
        assert read_csv(file) == [Record(str(tmp_path / "1,a.jpg"), "7", None)]

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("", "is empty; wanted a line for each image"),
            ("path,identity\n", "only the header"),
            ("pth;identity\n1.jpg;7\n", "no column 'path' in its first line, 'pth;identity'; did"),
            ("path,person\n1.jpg,7\n", "no column 'identity'"),
            ("path,identity,camera\n1.jpg,7,1\n2.jpg,7\n", "list.csv:3: camera is empty"),
            ("path,identity\n1.jpg,\n", "list.csv:2: identity is empty"),
            ("path,identity\n1.jpg,7\n2.jpg,7\n1.jpg,8\n", "1.jpg is listed twice"),
            ("path,identity\n\xff.jpg,7\n", "is not text in UTF-8"),
        ],
    )
    def test_what_is_wrong_is_told(self, text, error, tmp_path):
        with pytest.raises(UserError, match=re.escape(error)):
            read_csv(write(tmp_path, text, "latin-1"))

    def test_a_missing_file_is_refused(self, tmp_path):
        write(tmp_path, "")
        with pytest.raises(UserError, match=r"lost\.csv: there is no such file.*list\.csv"):
            read_folder(tmp_path / "lost.csv")

    def test_an_expression_is_for_folders_only(self, tmp_path):
        with pytest.raises(UserError, match="has a column for it; leave camera out"):
            read_folder(write(tmp_path, "path,identity\n1.jpg,7\n"), "c(.)")


SET = [record for name in "abcdefgh" for record in seen(name, "1122")]


class TestSplit:
    def test_identities_are_not_shared(self):
        train, query, gallery = split(SET, train_fraction=0.25)
        assert len(by_identity(train)) == 2
        assert len(by_identity(query)) == 6
        assert not by_identity(train).keys() & by_identity(query).keys()
        assert by_identity(query).keys() == by_identity(gallery).keys()
        assert sorted(train + query + gallery) == sorted(SET)

    def test_each_camera_has_one_query_of_an_identity(self):
        query = split(SET).query
        assert set(Counter(record[1:] for record in query).values()) == {1}
        assert len(query) == 8

    def test_the_seed_decides_and_the_order_of_the_images_does_not(self):
        assert split(SET) == split(SET[::-1])
        assert split(SET) != split(SET, seed=1)

    @pytest.mark.parametrize(
        ("cameras", "chosen"),
        [
            ("1122", [0, 2]),
            ("112", [0]),  # the only one of camera 2 is to be found
            ("123", [0]),
            ("111", []),  # by another camera there is none
            ("1", []),
            ([None, None, None], [0]),
            ([None], []),
        ],
    )
    def test_what_is_searched_for_has_a_match(self, cameras, chosen):
        images = seen("a", cameras)
        assert queries(images[::-1]) == [images[number] for number in chosen]

    def test_an_identity_that_cannot_be_searched_for_is_in_the_gallery(self):
        train, query, gallery = split([*seen("a", "11"), *seen("b", "12")], train_fraction=0)
        assert (train, [record.path for record in query]) == ([], ["b0"])
        assert [record.path for record in gallery] == ["a0", "a1", "b1"]

    def test_all_may_be_to_train_on(self):
        assert split(SET, train_fraction=1) == Splits(sorted(SET), [], [])

    @pytest.mark.parametrize(
        ("records", "fraction", "text"),
        [
            (SET, 1.5, "wanted a number from 0 to 1, got 1.5"),
            (SET, -0.1, "wanted a number from 0 to 1"),
            (SET, 0.1, "of 8 identities, 1 are for training"),
            (SET, 0.99, "0 images of the others have a match"),
            ([image for name in "abcd" for image in seen(name, "11")], 0.5, "several cameras"),
            (seen("a", "12"), 1, "of 1 identities, 1 are for training"),
        ],
    )
    def test_an_impossible_share_is_refused(self, records, fraction, text):
        with pytest.raises(UserError, match=text):
            split(records, train_fraction=fraction)

    def test_own_sets_are_split_as_they_are_read(self, tmp_path):
        touch(
            tmp_path,
            *(f"{name}/c{camera}_{n}.jpg" for name in "abcd" for camera in "12" for n in "12"),
        )
        splits = read_splits(tmp_path, camera="c(.)", train_fraction=0.75, seed=3)
        assert splits == split(read_folder(tmp_path, "c(.)"), train_fraction=0.75, seed=3)
        assert [len(part) for part in splits] == [12, 2, 2]


def test_labels_number_the_identities_in_the_order_of_their_names():
    images = [*seen("c", "12"), *seen("a", "1"), *seen("b", "1")]
    assert relabel(images) == ([2, 2, 0, 1], ["a", "b", "c"])


def test_missing_images_are_refused(tmp_path):
    images = [Record(str(tmp_path / f"{n}.jpg"), "a", None) for n in range(3)]
    touch(tmp_path, "0.jpg")
    with pytest.raises(UserError, match=r"1\.jpg: there is no such image \(2 are missing\)"):
        require_files(images)
    require_files(images[:1])
