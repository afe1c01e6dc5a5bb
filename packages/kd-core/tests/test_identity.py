"""A folder has an identity; another config is rejected."""

import pytest
from kd_core.errors import UserError
from kd_core.experiment import identity
from kd_core.files import checkpoint

CONFIG = {"optimizer": {"lr": 0.1}, "trainer": {"epochs": 2}, "data": {"root": "a"}}


def write_result(folder, epochs=2, **changed):
    scores = {"top1": 50.0}
    result = {"metric": "top1", "last": scores, "best": {**scores, "chosen_on": "test data"}}
    result |= {"student_parameters": 1, "train_seconds": 1.0, "epochs": epochs}
    result |= {"made_by": identity.digest_of(folder)}
    checkpoint.save_json({**result, **changed}, folder / "result.json")


def save_position(folder, epoch, step=0):
    checkpoint.save({"epoch": epoch, "step_in_epoch": step}, folder / "last.pth")


def with_epochs(epochs):
    return {**CONFIG, "trainer": {"epochs": epochs}}


def test_an_empty_folder_takes_any_config_and_then_only_that(tmp_path):
    assert identity.read(tmp_path) is None
    assert identity.check(tmp_path, CONFIG) is False
    identity.keep(tmp_path, CONFIG)
    kept = identity.read(tmp_path)
    assert kept["config"] == CONFIG
    assert kept["kd"]
    identity.check(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r"optimizer\.lr is 0\.1 there and 0\.2 here; name another"):
        identity.check(tmp_path, {**CONFIG, "optimizer": {"lr": 0.2}})


def test_of_many_differing_keys_a_few_are_named(tmp_path):
    identity.keep(tmp_path, {"a": dict.fromkeys("vwxyz", 1)})
    with pytest.raises(UserError, match=r"a\.v is .*; a\.w is .*; a\.x is .* \(and 2 more\);"):
        identity.check(tmp_path, {"a": dict.fromkeys("vwxyz", 2)})


@pytest.mark.parametrize("trace", ["config.py", "last.pth", "result.json"])
def test_a_run_without_its_config_is_refused(tmp_path, trace):
    (tmp_path / trace).touch()
    with pytest.raises(UserError, match=rf"has a {trace}, but no config\.json .* another folder"):
        identity.check(tmp_path, CONFIG)


@pytest.mark.parametrize("asked", [3, 30])
def test_more_epochs_resume_from_a_checkpoint(tmp_path, asked):
    identity.keep(tmp_path, CONFIG)
    save_position(tmp_path, 2)
    write_result(tmp_path)
    assert identity.finished(tmp_path, CONFIG)["epochs"] == 2
    identity.check(tmp_path, with_epochs(asked))
    assert identity.finished(tmp_path, with_epochs(asked)) is None


@pytest.mark.parametrize(
    ("epoch", "step", "asked"), [(2, 0, 1), (2, 0, 0), (1, 3, 1), (3, 0, 3), (3, 0, "x")]
)
def test_no_more_epochs_than_are_trained_is_refused(tmp_path, epoch, step, asked):
    identity.keep(tmp_path, with_epochs(5))
    save_position(tmp_path, epoch, step)
    with pytest.raises(UserError, match=rf"has trained for {epoch} epochs.* with 5; set more"):
        identity.check(tmp_path, with_epochs(asked))


def test_the_fingerprint_of_the_data_is_noted_once_and_outlives_a_new_config(tmp_path):
    identity.check_data(tmp_path, "a")  # not a folder of the tool's
    identity.keep(tmp_path, CONFIG)
    identity.check_data(tmp_path, "a")
    identity.keep(tmp_path, with_epochs(3))
    identity.check_data(tmp_path, "a")
    with pytest.raises(UserError, match="was made from other data"):
        identity.check_data(tmp_path, "b")


def test_a_moved_place_of_the_data_is_reported_not_refused(tmp_path):
    identity.keep(tmp_path, CONFIG)
    assert identity.check(tmp_path, {**CONFIG, "data": {"root": "b"}}) is True


@pytest.mark.parametrize("made_by", ["0" * 16, None, 3])
def test_a_result_of_another_run_is_refused(tmp_path, made_by):
    identity.keep(tmp_path, CONFIG)
    write_result(tmp_path, made_by=made_by)
    with pytest.raises(UserError, match=r"result\.json is not of the run .*; move result\.json"):
        identity.finished(tmp_path, CONFIG)
