"""Lists of images, as people write them: read in one way alone, or refused in one line."""

import os

import pytest
import torch
from kd_cls import data
from kd_core.errors import UserError
from PIL import Image

ROWS = [
    ("a/1.png", "cat", "train"),
    ("a/2.png", "dog", "train"),
    ("a/3.png", "cat", "test"),
    ("a/4.png", "dog", "test"),
]


@pytest.fixture(autouse=True)
def _images(tmp_path, monkeypatch):
    (tmp_path / "set/a").mkdir(parents=True)
    for number in range(1, 9):
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(tmp_path / f"set/a/{number}.png")
    monkeypatch.chdir(tmp_path)


def write(rows, header="path,label,split", separator=",", ending="\n", encoding="utf-8", file=None):
    file = file or "set/list.csv"
    lines = [*([header.split(",")] if header else []), *rows]
    text = ending.join(separator.join(line) for line in lines) + ending
    with open(file, "w", newline="", encoding=encoding) as stream:
        stream.write(text)
    return file


def read(csv="set/list.csv", **options):
    return data.image_list(csv, image_size=8, **options)


def shown(loader):
    """Return number of the image and class of every sample."""
    return [
        (int(image[0, 0, 0]) // 10, int(label))
        for image, label in zip(loader.images, loader.labels, strict=True)
    ]


def refused(**options):
    with pytest.raises(UserError) as caught:
        read(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestReading:
    @pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("header", ["path,label,split", None])
    def test_a_list_is_read_however_it_is_written(self, separator, ending, encoding, header):
        write(ROWS, header, separator, ending, encoding)
        splits = read()
        assert splits.classes == ("cat", "dog")
        assert shown(splits.train) == [(1, 0), (2, 1)]
        assert shown(splits.test) == [(3, 0), (4, 1)]

    @pytest.mark.parametrize(
        "header",
        [
            "File Name,Class,Subset",
            "img_path,target,FOLD",
            " image , Label_Name ,set",
            "file,y,set",
        ],
    )
    def test_usual_names_of_columns_are_known_and_others_can_be_given(self, header):
        write([(*row, "x") for row in ROWS], f"{header},more")
        given = {"label_column": "Y"} if ",y," in header else {}
        assert shown(read(**given).test) == [(3, 0), (4, 1)]

    def test_quotes_spaces_empty_lines_and_cells_at_the_end_are_understood(self):
        os.rename("set/a/1.png", "set/a, 1.png")
        lines = [
            "sep=;",
            'path; "label";split;;',
            "",
            '"a, 1.png"; cat ; Train',
            "a/2.png;dog;train",
        ]
        lines += ["a/3.png;cat;TEST;;", ";;", "a/4.png;dog;test"]
        with open("set/list.csv", "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines))
        with pytest.raises(UserError, match=r"list\.csv:4: has 3 cells, wanted 5"):
            read()
        write([], file="set/list.csv")
        with open("set/list.csv", "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines).replace("split;;", "split"))
        assert shown(read().train) == [(1, 0), (2, 1)]

    def test_more_lines_than_one_cannot_be_swallowed_by_an_open_quote(self):
        write([('"a/1.png', "cat", "train"), *ROWS[1:]])
        assert "has 1 cells, wanted 3" in refused()

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("name,label,split", "no column is the path in its first line 'name,label,split'"),
            ("path,lable,split", "no column is the label in its first line .*did you mean 'lable'"),
            (
                "path,image,label",
                "'path' and 'image' may be the path; name one: --cfg-options data.",
            ),
        ],
    )
    def test_columns_that_are_not_clear_are_asked_for(self, header, message):
        write(ROWS, header)
        with pytest.raises(UserError, match=message):
            read()

    def test_a_given_column_that_does_not_exist_is_named(self):
        write(ROWS)
        assert "no column 'lables' in its first line" in refused(label_column="lables")

    def test_lines_without_names_that_can_be_read_in_two_ways_are_refused(self):
        write([("a/1.png", "b.png"), ("a/2.png", "c.png")], None)
        assert "no column is the path in its first line 'a/1.png,b.png'" in refused()

    def test_a_part_that_is_no_word_is_named_with_its_line(self):
        write([*ROWS, ("a/5.png", "dog", "3")])
        assert refused().startswith("set/list.csv:6: the part '3' is not known; valid")

    def test_an_empty_cell_and_a_list_without_lines_are_named(self):
        write([*ROWS, ("a/5.png", "", "test")])
        assert refused().startswith("set/list.csv:6: the label is empty")
        write([])
        assert "no images in it" in refused()
        open("set/list.csv", "w").close()
        assert "is empty" in refused()

    def test_a_missing_list_and_one_in_another_encoding_are_named(self):
        assert "there is no such file" in refused(csv="set/lists.csv")
        write([("a/1.png", "Bär", "train")], encoding="latin-1")
        assert refused().startswith("set/list.csv:2: is not text in UTF-8")


class TestLabels:
    def test_whole_numbers_are_in_their_order_and_texts_in_theirs(self):
        rows = [(f"a/{n}.png", label) for n, label in enumerate(("10", "9", "1", "10"), 1)]
        write(rows, "path,label")
        write([("a/5.png", "10"), ("a/6.png", "9"), ("a/7.png", "1")], "path,label", file="t.csv")
        splits = read(test="t.csv", root="set")
        assert splits.classes == ("1", "9", "10")
        assert splits.labels.tolist() == [2, 1, 0, 2]

    @pytest.mark.parametrize("other", ["01", "1.0", "+1"])
    def test_one_number_written_in_two_ways_is_refused(self, other):
        write([*ROWS, ("a/5.png", "1", "train"), ("a/6.png", other, "train")])
        assert f"the label {other!r} is the same number as '1' (set/list.csv:6)" in refused()

    def test_numbers_with_zeros_before_them_are_classes_of_their_own_names(self):
        write([(path, {"cat": "0007", "dog": "0012"}[label], part) for path, label, part in ROWS])
        assert read().classes == ("0007", "0012")

    def test_a_label_of_test_images_alone_is_refused_by_name(self):
        write([*ROWS, ("a/5.png", "dogs", "test")])
        assert "list.csv:6: the training images have no class 'dogs'" in refused()
        assert "did you mean 'dog'" in refused(allow_missing_classes=True)

    def test_a_label_of_training_images_alone_can_be_allowed(self, capsys):
        write([*ROWS, ("a/5.png", "owl", "train")])
        assert "test part: no image of class 'owl'" in refused()
        assert "--cfg-options data.allow_missing_classes=True" in refused()
        assert read(allow_missing_classes=True).classes == ("cat", "dog", "owl")
        assert "warning" in capsys.readouterr().err


class TestParts:
    def test_without_test_images_a_way_is_named(self):
        write([row[:2] for row in ROWS], "path,label")
        assert "no column says train or test" in refused()
        assert "data.test=FILE.csv, or data.test_share=0.2" in refused()
        write([row for row in ROWS if row[2] == "train"])
        assert "no line says test or val" in refused()

    def test_a_share_is_drawn_by_class_and_does_not_depend_on_the_data_seed(self):
        rows = [(f"a/{n}.png", "cat" if n < 5 else "dog") for n in range(1, 9)]
        write(rows, "path,label")
        first, same, other = (
            read(test_share=0.5, data_seed=seed, split_seed=of)
            for seed, of in ((0, 0), (1, 0), (0, 2))
        )
        assert torch.bincount(first.test.labels).tolist() == [2, 2]
        assert sorted(shown(first.train) + shown(first.test)) == [
            (number, int(number > 4)) for number in range(1, 9)
        ]
        assert shown(first.test) == shown(same.test) != shown(other.test)

    def test_three_parts_are_kept_and_val_is_the_test_set_where_there_is_none(self):
        val = [("a/5.png", "cat", "valid"), ("a/6.png", "dog", "dev")]
        write([*ROWS, *val])
        splits = read()
        assert shown(splits.val) == [(5, 0), (6, 1)]
        assert shown(splits.test) == [(3, 0), (4, 1)]
        assert "leave data.val_fraction out" in refused(val_fraction=0.5)
        write([*ROWS[:2], *val])
        assert shown(read().test) == [(5, 0), (6, 1)]
        assert read().val is None

    def test_two_answers_to_which_are_test_images_are_refused(self):
        write(ROWS)
        assert "leave data.test_share out" in refused(test_share=0.5)
        write([("a/5.png", "cat"), ("a/6.png", "dog")], "path,label", file="set/t.csv")
        assert "list.csv:4: is a test image; leave data.test out" in refused(test="set/t.csv")
        write(ROWS[:2])
        assert shown(read(test="set/t.csv").test) == [(5, 0), (6, 1)]
        write(ROWS[:1], file="set/t.csv")
        assert "is a training image in the list of data.test" in refused(test="set/t.csv")

    def test_an_image_in_two_parts_is_refused(self):
        write([*ROWS, ("./a/../a/1.png", "cat", "test")])
        assert "list.csv:6: set/a/1.png is in test, and in train (set/list.csv:2)" in refused()


class TestFiles:
    def test_missing_images_are_counted_and_named(self):
        write([*ROWS, ("b/1.png", "cat", "train"), ("C:\\b\\2.png", "cat", "train")])
        line = refused()
        assert "2 of 4 images are missing: 'b/1.png', 'C:" in line
        assert "--cfg-options data.root=FOLDER" in line

    def test_paths_start_from_the_list_or_the_root_or_nowhere(self, tmp_path):
        write(ROWS)
        os.rename("set/list.csv", "list.csv")
        assert "images are missing" in refused(csv="list.csv")
        assert len(read("list.csv", root="set").labels) == 2
        write([(f"{tmp_path}/set/{row[0]}", *row[1:]) for row in ROWS], file="list.csv")
        assert len(read("list.csv").labels) == 2

    def test_backslashes_of_windows_are_understood_and_names_with_one_are_kept(self):
        write([(path.replace("/", "\\"), *rest) for path, *rest in ROWS])
        assert shown(read().train) == [(1, 0), (2, 1)]
        os.rename("set/a/1.png", "set/a\\1.png")
        assert shown(read().train) == [(1, 0), (2, 1)]

    def test_relative_paths_leave_the_folder_only_if_that_is_allowed(self):
        os.rename("set/a/1.png", "1.png")
        write([("../1.png", "cat", "train"), *ROWS[1:]])
        assert "list.csv:2: '../1.png' leaves the folder 'set'" in refused()
        assert shown(read(outside_root=True).train) == [(1, 0), (2, 1)]

    def test_an_image_that_is_listed_twice_counts_once_or_is_refused(self, capsys):
        write([*ROWS, ROWS[0], ROWS[1]])
        assert shown(read().train) == [(1, 0), (2, 1)]
        assert "list.csv: 2 lines repeat an image" in " ".join(capsys.readouterr().err.split())
        write([*ROWS, ("a/1.png", "dog", "train")])
        assert "list.csv:6: 'a/1.png' is 'dog', and 'cat' in set/list.csv:2" in refused()

    def test_what_is_no_file_is_named_and_never_waited_for(self):
        os.mkfifo("set/pipe.png")
        write([*ROWS, ("pipe.png", "cat", "train")])
        assert "pipe.png: is a FIFO" in refused()
        os.mkfifo("set/list.fifo")
        assert "there is no such file" in refused(csv="set/list.fifo")
