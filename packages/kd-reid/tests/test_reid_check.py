"""The check of a set finds all that is wrong, and says whether it can be evaluated."""

import json

import pytest
from PIL import Image

pytest.importorskip("torchreid")
from kd_reid.check import main
from kd_reid.data.check import check


def paint(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 32), (9 * number, 0, 0)).save(root / name)
    return root


@pytest.fixture
def own(tmp_path):
    """Return a folder of three identities: by two cameras, by one, and of one image."""
    names = ["a/c1_1.png", "a/c2_1.png", "b/c1_1.png", "b/c1_2.png", "d/c3.png"]
    return paint(tmp_path / "own", *names)


@pytest.fixture
def market(tmp_path):
    return paint(
        tmp_path / "market",
        "bounding_box_train/0001_c1s1_000000_00.jpg",
        "bounding_box_train/0002_c3s1_000000_00.jpg",
        "query/0003_c1s1_000000_00.jpg",
        "query/0004_c1s1_000000_00.jpg",
        "bounding_box_test/0003_c2s1_000000_00.jpg",
        "bounding_box_test/0004_c1s1_000001_00.jpg",
        "bounding_box_test/0000_c1s1_000001_00.jpg",
        "bounding_box_test/-1_c1s1_000001_00.jpg",
    )


def test_a_sound_set_passes_and_is_counted(own, capsys):
    assert main([str(own), "--camera", r"c(\d)"]) == 0
    shown = capsys.readouterr().out
    assert "all usable\nevaluation is possible: 1 identity can be searched for" in shown
    report = check(own, r"c(\d)")
    assert (report["images"], report["identities"], report["cameras"]) == (5, 3, 3)
    assert (report["one_image"], report["one_camera"]) == (1, 2)


def test_without_cameras_two_images_are_enough(own, capsys):
    report = check(own)
    assert (report["cameras"], report["one_camera"]) == (None, None)
    assert report["searchable_identities"] == 2
    assert main([str(own)]) == 0
    shown = capsys.readouterr().out
    assert "unknown" in shown
    assert "2 identities can be searched for (two images)" in shown


@pytest.mark.parametrize(
    ("names", "arguments", "text"),
    [
        (["a/c1.png", "b/c1.png"], [], "two images"),
        (["a/c1.png", "b/c1.png"], ["--camera", "c(.)"], "two images"),
        (["a/c1.png", "a/c1b.png"], ["--camera", "c(.)"], "images by two cameras, all are by cam"),
    ],
)
def test_it_tells_when_evaluation_is_not_possible(names, arguments, text, tmp_path, capsys):
    paint(tmp_path, *names)
    assert main([str(tmp_path), *arguments]) == 1
    assert f"evaluation is not possible: there is no identity with {text}" in (
        capsys.readouterr().out
    )


def test_images_by_one_camera_are_sound_but_not_called_usable(tmp_path, capsys):
    paint(tmp_path, "a/c1_1.png", "a/c1_2.png")
    assert main([str(tmp_path), "--camera", "c(.)"]) == 1
    shown = capsys.readouterr().out
    assert "all images can be read\nevaluation is not possible" in shown
    assert "all usable" not in shown


@pytest.mark.parametrize(
    ("names", "arguments", "hint"),
    [
        (["a/c1_1.png", "a/c2_1.png"], [], r"names begin with c1_ and c2_: are these cameras? "),
        (["a/Cam1_1.png", "b/x/Cam2_1.png", "b/Cam2_2.png"], [], r"--camera 'Cam(\d+)'"),
        (["a/c1_1.png", "a/c2_1.png"], ["--same-camera"], None),
        (["a/c1_1.png", "a/c2_1.png"], ["--camera", r"c(\d)"], None),
        (["a/c1_1.png", "a/c1_2.png"], [], None),
        (["a/c1.png", "a/c2.png"], [], None),
        (["a/c1_1.png", "a/c2_1.png", "b/1.png"], [], None),
        (["a/c1_1.png", "a/cam2_1.png"], [], None),
    ],
)
def test_names_that_seem_to_begin_with_cameras_are_told(names, arguments, hint, tmp_path, capsys):
    paint(tmp_path, *names)
    main([str(tmp_path), *arguments])
    shown = " ".join(capsys.readouterr().out.split())
    assert hint in shown if hint else "are these cameras" not in shown


def test_the_help_says_what_the_exit_statuses_of_a_check_mean(capsys):
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "exit status: 0 the set can be used; 1 it cannot, or a bug; 2 refused" in shown


def test_the_layout_of_market_1501_is_counted_by_its_folders(market):
    report = check(market)
    assert report["splits"] == {"train": 2, "query": 2, "gallery": 3}
    assert (report["images"], report["distractors"], report["identities"]) == (7, 1, 4)
    assert report["searchable_identities"] == 1
    assert report["usable"]


def test_an_identity_to_train_on_and_to_search_for_is_found(market, capsys):
    paint(market, "bounding_box_train/0004_c1s1_000009_00.jpg")
    assert check(market)["leaked_identities"] == ["0004"]
    assert main([str(market)]) == 1
    assert "identities both to train on and to search for: 0004" in capsys.readouterr().out


def test_a_missing_file_is_found(own, tmp_path, capsys):
    file = tmp_path / "list.csv"
    file.write_text("path,identity\nown/a/c1_1.png,a\nown/a/lost.png,a\n")
    lost = str(tmp_path / "own/a/lost.png")
    report = check(file)
    assert report["missing_files"] == [lost]
    assert report["unreadable_files"] == {}
    assert main([str(file)]) == 1
    assert f"missing files: {lost}" in capsys.readouterr().out


def test_a_file_that_ends_early_is_found(own):
    file = own / "a/c1_1.png"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:-2000])
    report = check(own)
    assert "truncated" in report["unreadable_files"][str(file)]
    assert not report["usable"]


def test_the_report_can_be_written(own, tmp_path):
    (own / "a/c1_1.png").write_bytes(b"")
    assert main([str(own), "--out", str(tmp_path / "report.json")]) == 1
    assert json.loads((tmp_path / "report.json").read_text()) == check(own)


def test_long_lists_are_cut_on_the_terminal_only(tmp_path, capsys):
    file = tmp_path / "list.csv"
    file.write_text("path,identity\n" + "".join(f"{n}.jpg,a\n" for n in range(8)))
    assert main([str(file)]) == 1
    assert "4.jpg, and 3 more" in capsys.readouterr().out
    assert len(check(file)["missing_files"]) == 8


def test_wrong_arguments_are_one_line(own, capsys):
    for wrong, text in (
        (["nowhere"], "there is no folder or CSV file nowhere"),
        (["nothing.csv"], "there is no folder or CSV file nothing.csv"),
        ([str(own), "--workers", "0"], "--workers 0"),
        ([str(own), "--workers", "0", "--out", str(own)], "is a folder; wanted the name of a file"),
        ([str(own), "--camera", "("], "not a regular expression"),
    ):
        assert main(wrong) == 2
        shown = capsys.readouterr()
        assert text in shown.err
        assert shown.err.count("\n") == 1
