"""What counts when two configs are compared, and what may differ."""

import inspect
import json

import pytest
from kd_core.experiment.differences import (
    DATA_MAY_DIFFER,
    PLACES,
    TRAINER,
    differences,
    digest,
    essence,
    moved,
    with_contents,
)
from kd_core.training.settings import TrainerSettings


def test_every_key_of_the_trainer_is_known_to_count_or_not():
    assert set(TRAINER) == set(inspect.signature(TrainerSettings).parameters)


def test_only_logs_checkpoints_graphs_and_what_computes_the_same_may_differ():
    free = {"save_every", "save_minutes", "keep_every", "log_every", "loggers"}
    assert {key for key, counts in TRAINER.items() if not counts} == {
        *free,
        "allow_weak_teacher",
        "capture",
        "activation_checkpointing",
    }


@pytest.mark.parametrize("nest", ["", "phases.first.", "teacher.config.", "teachers.a.config."])
def test_what_cannot_change_a_result_may_differ_in_every_config_inside(nest):
    def config(value):
        node = {
            "trainer": {key: value for key, counts in TRAINER.items() if not counts},
            "data": {key: value for key in DATA_MAY_DIFFER} | {"arguments": {"workers": value}},
        }
        for key in reversed(nest.split(".")[:-1]):
            node = {key: node}
        return node

    assert differences(config(1), config({"a": 2})) == {}
    assert differences(config(1), {}) == {}
    assert essence(config(1)) == {}


@pytest.mark.parametrize("key", [key for key, counts in TRAINER.items() if counts])
def test_all_else_of_the_trainer_counts(key):
    found = differences({"trainer": {key: "a"}}, {"trainer": {key: ""}})
    assert list(found) == [f"trainer.{key}"]


@pytest.mark.parametrize(
    ("there", "here", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (None, 0, False),
        ((1, 2), [1, 2], True),
        ([1, 2], [1], False),
        ({}, [], False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("-inf"), False),
        ([{"a": 1}], [{"a": 2}], False),
        ({"b": {"c": 1}, "a": 2}, {"a": 2, "b": {"c": 1}}, True),
        ("1", 1, False),
    ],
)
def test_values_are_compared_as_json_has_them(there, here, same):
    kept = json.loads(json.dumps(with_contents({"x": there})))
    assert (not differences(kept, with_contents({"x": here}))) is same


def test_a_key_that_is_left_out_has_the_trainer_s_default():
    assert differences({"trainer": {}}, {"trainer": {"precision": "fp32", "ema": None}}) == {}
    (text,) = differences({"trainer": {}}, {"trainer": {"precision": "bf16"}}).values()
    assert text == "trainer.precision is 'fp32' there and 'bf16' here"


def test_a_teacher_cache_counts_but_not_where_it_is():
    there = {"trainer": {"teacher_cache": "a"}}
    assert differences(there, {"trainer": {"teacher_cache": True}}) == {}
    assert differences(there, {"trainer": {"teacher_cache": False}})
    assert differences(there, {"trainer": {}})
    assert differences(there, {"trainer": {"teacher_cache": {"folder": "b"}}}) == {}
    (text,) = differences(there, {"trainer": {"teacher_cache": {"topk": 5}}}).values()
    assert text == "trainer.teacher_cache.topk is not set there and 5 here"


def test_files_count_by_content_and_by_name_where_they_are_not_there(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    a, b, c = (with_contents({"weights": [str(tmp_path / name)]}) for name in "abc")
    assert a["weights"][0].keys() == {"file", "sha256"}
    assert with_contents(a) == a
    assert differences(a, b) == {}
    assert digest(a) == digest(b) != digest(c)
    assert "weights.0" in differences(a, c)
    assert differences(a, {"weights": [str(tmp_path / "a")]}) == {}  # its content is not known
    assert differences(a, {"weights": [str(tmp_path / "b")]})


def test_a_file_that_has_the_name_of_an_import_path_is_not_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.b").write_text("")
    assert with_contents({"type": "a.b"}) == {"type": "a.b"}


@pytest.mark.parametrize("place", PLACES)
def test_the_place_of_the_data_may_change_but_is_named(place):
    there, here = {"data": {place: "a", "size": 1}}, {"data": {place: "b", "size": 1}}
    assert moved(there, here) == [f"data.{place}"]
    assert moved(there, there) == []
    assert digest(there) == digest(here)
    assert essence(there) != essence(here)


def test_keys_with_dots_or_other_types_do_not_confuse_it():
    assert differences({"a.b": 1}, {"a": {"b": 2}})
    assert differences(with_contents({1: 2}), with_contents({1: 2})) == {}


class TestWeights:
    """Weights that are not one file count by their content too."""

    @staticmethod
    def hash_of(weights):
        return with_contents({"teacher": {"weights": str(weights)}})["teacher"]["weights"]["sha256"]

    def test_a_part_of_a_file_is_not_another(self, tmp_path):
        (tmp_path / "w.pth").write_text("a")
        found = {self.hash_of(f"{tmp_path / 'w.pth'}{part}") for part in ("", "#a", "#b")}
        assert len(found) == 3

    def test_a_folder_counts_by_its_weights_and_what_describes_them(self, tmp_path):
        for name in ("model.safetensors", "config.json", "README.md"):
            (tmp_path / name).write_text("a")
        first = self.hash_of(tmp_path)
        (tmp_path / "README.md").write_text("another")
        assert self.hash_of(tmp_path) == first
        (tmp_path / "config.json").write_text("another")
        second = self.hash_of(tmp_path)
        (tmp_path / "model.safetensors").write_text("another")
        assert len({first, second, self.hash_of(tmp_path)}) == 3

    def test_shards_count_each(self, tmp_path):
        index = {"weight_map": {"a": "1.bin", "b": "2.bin"}}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        for name in ("1.bin", "2.bin"):
            (tmp_path / name).write_text("a")
        first = self.hash_of(tmp_path)
        (tmp_path / "2.bin").write_text("another")
        assert self.hash_of(tmp_path) != first

    def test_what_is_not_there_is_left_as_text(self, tmp_path):
        node = {"weights": str(tmp_path)}
        assert with_contents(node) == node
