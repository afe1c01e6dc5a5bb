"""Where a run goes: nothing is overwritten."""

from functools import partial
from pathlib import Path

import pytest
from kd_core.errors import UserError
from kd_core.files.claim import claimed
from kd_core.files.workdir import has_run, run_folder


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def choose(given, names, *, resume):
    """Return which folder a run gets, and releases at once."""
    with run_folder(given, names, resume=resume) as folder:
        return folder


def leave(trace):
    path = Path(trace)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_without_a_folder_the_names_of_the_configs_make_one():
    assert choose(None, ["cifar100", "wrn_40_2", "a.b c"], resume=False) == Path(
        "runs/cifar100-wrn_40_2-a_b_c"
    )


def test_a_new_run_takes_a_new_folder_and_resume_the_newest():
    taken = []
    for _ in range(3):
        taken.append(choose(None, ["demo"], resume=False))
        leave(taken[-1] / "last.pth")
    assert taken == [Path("runs/demo"), Path("runs/demo-2"), Path("runs/demo-3")]
    assert choose(None, ["demo"], resume=True) == Path("runs/demo-3")


def test_resume_without_any_run_starts_one():
    assert choose(None, ["demo"], resume=True) == Path("runs/demo")


@pytest.mark.parametrize(
    "trace",
    [
        "config.json",
        "config.py",
        "last.pth",
        "result.json",
        "summary.json",
        "seed-1/last.pth",
        "a/b/config.py",
    ],
)
def test_a_given_folder_that_holds_a_run_is_only_resumed(trace):
    leave(f"here/{trace}")
    assert has_run(Path("here"))
    with pytest.raises(UserError, match=r"--work-dir here has a run already; add --resume"):
        choose("here", [], resume=False)
    assert choose("here", [], resume=True) == Path("here")


def test_a_given_folder_may_be_new_or_hold_other_things():
    leave("here/notes.txt")
    assert choose("here", [], resume=False) == Path("here")
    assert choose("elsewhere", [], resume=True) == Path("elsewhere")
    assert not has_run(Path("elsewhere"))


def test_a_folder_in_use_is_passed_over_though_nothing_is_in_it_yet():
    run = partial(run_folder, None, ["demo"], resume=False)
    with run() as first, run() as second:
        assert (first, second) == (Path("runs/demo"), Path("runs/demo-2"))
    assert not Path("runs").exists()


def test_a_folder_in_use_is_not_resumed_and_no_older_one_instead():
    leave("runs/demo/result.json")
    with claimed(Path("runs/demo-2")):
        for given in ("runs/demo-2", None):
            with pytest.raises(UserError, match=r"runs/demo-2 is in use by another run: process"):
                choose(given, ["demo"], resume=True)
    assert choose(None, ["demo"], resume=True) == Path("runs/demo")


def test_a_folder_that_is_refused_is_given_back():
    leave("here/last.pth")
    for _ in range(2):
        with pytest.raises(UserError, match="has a run already"):
            choose("here", [], resume=False)
    assert [path.name for path in Path("here").iterdir()] == ["last.pth"]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_working_folder(name, resume):
    with pytest.raises(UserError, match=r"wanted the name of a folder, \. for this one"):
        choose(name, ["demo"], resume=resume)
    assert not list(Path().iterdir())
