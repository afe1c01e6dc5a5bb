"""What the commands that check a data set share: images read in threads, and the printed report."""

import pytest
from kd_core.errors import UserError
from kd_core.experiment.data_report import check_workers, print_report, read_all

UNUSABLE = {"missing": "missing files", "broken": "files that cannot be decoded"}


def printed(capsys, report, counts=None):
    print_report({"missing": [], "broken": {}, "usable": False, **report}, counts or {}, UNUSABLE)
    return capsys.readouterr().out


def test_every_image_is_read_and_comes_with_its_problem_in_order():
    images = list(range(50))
    found = list(read_all(images, lambda image: image % 7 == 0, workers=3))
    assert found == [(image, image % 7 == 0) for image in images]


def test_an_error_of_a_reader_is_not_lost():
    with pytest.raises(ZeroDivisionError):
        list(read_all([1, 0], lambda image: 1 / image, workers=2))


@pytest.mark.parametrize("workers", [0, -1])
def test_no_threads_are_refused(workers):
    with pytest.raises(UserError, match=f"--workers {workers}: .*at least 1"):
        check_workers(workers)
    check_workers(1)


def test_counts_are_rows_and_what_is_not_known_says_so(capsys):
    lines = printed(capsys, {}, {"images": 12345, "cameras": None}).splitlines()
    assert any("images" in line and "12,345" in line for line in lines)
    assert any("cameras" in line and "unknown" in line for line in lines)


def test_a_problem_stands_beside_its_file(capsys):
    shown = printed(capsys, {"missing": ["a.png", 7], "broken": {"b[1].png": "truncated"}})
    assert "missing files: a.png, 7\n" in shown
    assert "files that cannot be decoded: b[1].png (truncated)\n" in shown


def test_long_lists_are_cut_and_say_how_much_is_left(capsys):
    shown = printed(capsys, {"missing": list("abcdefgh")})
    assert "missing files: a, b, c, d, e, and 3 more\n" in shown
    assert "more" not in printed(capsys, {"missing": list("abcde")})


def test_only_a_usable_set_is_called_usable(capsys):
    assert "all usable\n" in printed(capsys, {"usable": True})
    assert "all usable" not in printed(capsys, {"missing": ["a"]})
