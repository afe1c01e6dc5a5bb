"""Phases: run once, in order, named by what they depend on."""

from dataclasses import replace

import pytest
from kd_core.config.node import Node
from kd_core.errors import UserError
from kd_core.experiment import identity
from kd_core.experiment.differences import with_contents
from kd_core.experiment.phases import ensure, key_of, run_phases
from kd_core.experiment.results import hashes_of
from kd_core.experiment.spec import Experiment
from kd_core.files import checkpoint


class Train:
    """Stands for training: notes the settings and leaves a product."""

    def __init__(self, fail=()):
        self.ran = []
        self.fail = fail

    def __call__(self, config, folder):
        self.ran.append((folder.name.rpartition("-")[0], config))
        if config.student["name"] in self.fail:
            raise KeyboardInterrupt
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "student.pth").write_text(f"product of {config.student['name']}")
        leave(folder)

    @property
    def names(self):
        return [name for name, _ in self.ran]


def leave(folder, products=()):
    """Write the result of a run that the folder's config.json describes, and its weights."""
    scores = {"top1": 50.0}
    result = {"metric": "top1", "last": scores, "best": {**scores, "chosen_on": "test data"}}
    result |= {"student_parameters": 1, "train_seconds": 1.0}
    result["products"] = hashes_of((folder / name for name in products), folder)
    checkpoint.save_json({**result, "made_by": identity.digest_of(folder)}, folder / "result.json")
    (folder / "student.safetensors").touch()


def run(experiment, folder, train):
    """Run the phases in folders that are named by their settings."""

    def place_of(name, phase):
        settings = phase.plain()
        return folder / f"{name}-{key_of(settings)}", with_contents(settings)

    return run_phases(experiment, place_of, train)


def phase(name, lr=0.1, **student):
    nodes = {"student": {"name": name, **student}, "optimizer": {"lr": lr}}
    nodes = {key: Node(dict, value) for key, value in nodes.items()}
    return Experiment(data=Node(dict, {"batch_size": 4}), distiller=Node(dict), **nodes)


def three(first_lr=0.1, second_lr=1.0):
    earlier = {
        "teacher": phase("t", first_lr),
        "warm": phase("w", second_lr, start="phase:teacher/student.pth"),
    }
    return replace(phase("m", weights=["phase:warm", "x"]), phases=earlier)


def test_an_experiment_without_stages_is_returned_as_it_is(tmp_path):
    train = Train()
    assert run(phase("alone"), tmp_path, train) == phase("alone")
    assert train.ran == []


def test_stages_run_in_order_and_the_last_is_left_to_the_caller(tmp_path):
    train = Train()
    last = run(three(), tmp_path, train)
    assert train.names == ["teacher", "warm"]
    settings = train.ran[1][1]
    assert settings.data == {"batch_size": 4}
    assert settings.optimizer == {"lr": 1.0}
    assert settings.phases == last.phases == {}
    assert last.student["name"] == "m"
    assert last.optimizer == {"lr": 0.1}


def test_a_product_is_named_by_later_stages(tmp_path):
    train = Train()
    last = run(three(), tmp_path, train)
    with open(train.ran[1][1].student["start"]) as file:
        assert file.read() == "product of t"
    with open(last.student["weights"][0]) as file:
        assert file.read() == "product of w"
    assert last.student["weights"][1] == "x"


def test_stages_that_are_done_are_skipped(tmp_path):
    first = run(three(), tmp_path, Train())
    again = Train()
    assert run(three(), tmp_path, again) == first
    assert again.ran == []


def test_a_stage_that_was_cut_off_runs_again_in_its_folder(tmp_path):
    cut = Train(fail=["w"])
    with pytest.raises(KeyboardInterrupt):
        run(three(), tmp_path, cut)
    again = Train()
    run(three(), tmp_path, again)
    assert again.names == ["warm"]
    assert again.ran[0][1] == cut.ran[1][1]


def test_changed_settings_run_the_stage_that_has_them_and_those_after_it(tmp_path):
    run(three(), tmp_path, Train())
    again = Train()
    run(three(first_lr=0.2), tmp_path, again)
    assert again.names == ["teacher"]  # its product is the same, and `warm` has its own rate
    again = Train()
    run(three(second_lr=2.0), tmp_path, again)
    assert again.names == ["warm"]


def test_the_key_follows_settings_and_the_content_of_files_not_their_place(tmp_path):
    for name, content in (("a.pth", "1"), ("b.pth", "1"), ("c.pth", "2")):
        (tmp_path / name).write_text(content)
    keys = [key_of({"teacher": {"weights": [str(tmp_path / name)]}}) for name in ("a.pth", "b.pth")]
    assert keys[0] == keys[1]
    assert key_of({"teacher": {"weights": [str(tmp_path / "c.pth")]}}) != keys[0]
    assert key_of({"a": 1, "b": {"c": 2}}) == key_of({"b": {"c": 2}, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert key_of({"a": "x" * 5000}) != key_of({"a": "\0"})  # no paths at all


def test_a_reference_to_no_earlier_stage_names_the_nearest(tmp_path):
    wrong = replace(phase("m", weights="phase:teachr"), phases=three().phases)
    with pytest.raises(UserError, match=r"no earlier phase 'teachr'; did you mean 'teacher'"):
        run(wrong, tmp_path, Train())
    with pytest.raises(UserError, match="no earlier phase 'main'"):
        run(phase("m", x="phase:main"), tmp_path, Train())


def test_a_product_is_made_once_and_must_be_there_afterwards(tmp_path):
    calls = []

    def make():
        calls.append(1)
        leave(tmp_path / "x")

    for _ in range(2):
        ensure(tmp_path / "x", {"a": 1}, make, "phase x")
    assert calls == [1]
    with pytest.raises(UserError, match=r"phase y ended without its product .*y/result\.json"):
        ensure(tmp_path / "y", {"a": 1}, make, "phase y")


def test_a_folder_that_other_settings_made_is_not_taken(tmp_path):
    ensure(tmp_path / "x", {"a": 1}, lambda: leave(tmp_path / "x"), "phase x")
    with pytest.raises(
        UserError, match=r"x was made by .*: a is 1 there and 2 here; move .*x elsewhere,"
    ):
        ensure(tmp_path / "x", {"a": 2}, pytest.fail, "phase x")


def test_a_finished_folder_without_its_weights_is_not_taken(tmp_path):
    ensure(tmp_path / "x", {"a": 1}, lambda: leave(tmp_path / "x"), "phase x")
    (tmp_path / "x/student.safetensors").unlink()
    with pytest.raises(UserError, match=r"student\.safetensors is missing; move"):
        ensure(tmp_path / "x", {"a": 1}, pytest.fail, "phase x")


def test_a_folder_with_another_run_s_product_is_not_taken(tmp_path):
    def make():
        (tmp_path / "x/criteria").mkdir()
        (tmp_path / "x/criteria/a.pth").write_text("a")
        leave(tmp_path / "x", ["criteria/a.pth"])

    ensure(tmp_path / "x", {"a": 1}, make, "phase x")
    ensure(tmp_path / "x", {"a": 1}, pytest.fail, "phase x")
    (tmp_path / "x/criteria/a.pth").write_text("b")
    with pytest.raises(UserError, match=r"a\.pth is not the file that its run wrote; move"):
        ensure(tmp_path / "x", {"a": 1}, pytest.fail, "phase x")
    (tmp_path / "x/criteria/a.pth").unlink()
    with pytest.raises(UserError, match=r"finished, but its criteria/a\.pth is missing; move"):
        ensure(tmp_path / "x", {"a": 1}, pytest.fail, "phase x")


def test_a_result_of_another_folder_is_not_taken(tmp_path):
    for name, value in (("x", 1), ("y", 2)):
        ensure(tmp_path / name, {"a": value}, lambda name=name: leave(tmp_path / name), name)
    (tmp_path / "x/result.json").write_bytes((tmp_path / "y/result.json").read_bytes())
    with pytest.raises(UserError, match=r"result\.json is not of the run that config\.json beside"):
        ensure(tmp_path / "x", {"a": 1}, pytest.fail, "phase x")


def test_what_cannot_change_the_result_does_not_change_the_key():
    settings = {"trainer": {"epochs": 1}, "data": {"root": "a"}}
    quiet = {"trainer": {"epochs": 1, "log_every": 5}, "data": {"root": "a", "workers": 2}}
    assert key_of(settings) == key_of(quiet)
    assert key_of(settings) != key_of({**settings, "data": {"root": "b"}})


def test_a_phase_cut_off_before_its_last_file_is_resumed(tmp_path):
    run(three(), tmp_path, Train())
    next(tmp_path.glob("teacher-*/result.json")).unlink()  # its student.pth is there
    again = Train()
    run(three(), tmp_path, again)
    assert again.names == ["teacher"]
