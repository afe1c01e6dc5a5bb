"""Results and logs are read back only if they are whole."""

import copy
import math

import pytest
from kd_core.errors import UserError
from kd_core.experiment.results import read_history, read_result
from kd_core.files import checkpoint

RESULT = {
    "metric": "top1",
    "last": {"epoch": 2, "top1": 50.0},
    "best": {"epoch": 1, "top1": 60.0, "chosen_on": "test data"},
    "student_parameters": 5,
    "train_seconds": 0.5,
    "environment": {},
}


def changed(path, value):
    result = copy.deepcopy(RESULT)
    *inner, key = path.split(".")
    node = result
    for name in inner:
        node = node[name]
    node[key] = value
    return result


def test_a_whole_result_is_returned(tmp_path):
    checkpoint.save_json(RESULT, tmp_path / "result.json")
    assert read_result(tmp_path) == RESULT


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "3", '{"metric": "top1"}', "\0", "{"])
def test_a_file_that_is_no_result_is_one_line_with_its_remedy(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(
        UserError, match=r"result\.json: damaged \(.*; move result\.json elsewhere, and"
    ):
        read_result(tmp_path)


@pytest.mark.parametrize("key", ["metric", "last", "best", "student_parameters", "train_seconds"])
def test_a_result_that_lacks_a_key_is_refused(tmp_path, key):
    result = {name: value for name, value in RESULT.items() if name != key}
    checkpoint.save_json(result, tmp_path / "result.json")
    with pytest.raises(UserError, match=rf"damaged \(`{key}`"):
        read_result(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, "50", None, True, [], {}])
@pytest.mark.parametrize("path", ["last.top1", "best.top1", "last.epoch", "train_seconds"])
def test_a_value_that_is_no_finite_number_is_named(tmp_path, path, value):
    checkpoint.save_json(changed(path, value), tmp_path / "result.json")
    with pytest.raises(UserError, match=rf"`{path}` is .*, wanted a finite number"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"), [("metric", "top5"), ("last", {}), ("best", []), ("best.chosen_on", 1)]
)
def test_other_structures_are_refused(tmp_path, path, value):
    checkpoint.save_json(changed(path, value), tmp_path / "result.json")
    with pytest.raises(UserError, match="damaged"):
        read_result(tmp_path)


def test_no_result_says_when_there_is_one(tmp_path):
    with pytest.raises(UserError, match=r"has no result\.json, which a run writes at"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ('{"epoch": 1}\n{"epo', "line 2: damaged"),
        ("null\n", "line 1: damaged"),
        ('{"loss": 1}\n', "line 1: damaged"),
        ('{"epoch": "1"}\n', "line 1: damaged"),
    ],
)
def test_a_damaged_log_is_one_line_with_its_remedy(tmp_path, text, problem):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(UserError, match=rf"log\.jsonl.*{problem}.*move result\.json"):
        read_history(tmp_path)


def test_a_missing_or_binary_log_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"log\.jsonl cannot be read"):
        read_history(tmp_path)
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"log\.jsonl cannot be read"):
        read_history(tmp_path)
