"""What a killed process left under temporary names is found and removed; nothing else is."""

import os
import time

import pytest
from kd_core.files import checkpoint, leftovers
from kd_core.files.leftovers import remove_leftovers, temporary
from kd_core.runtime.processes import this_process

HERE = this_process().machine
DEAD = f"{HERE}-4194303-7-0"  # no process has this number and this start
ELSEWHERE = "00000000-77-5-0"


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def leave(path, age=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_files_and_folders_of_dead_processes_go(tmp_path):
    leave(tmp_path / f".last.pth.{DEAD}.tmp")
    leave(tmp_path / f".cache-1.{DEAD}.tmp/values.f16")
    leave(tmp_path / f"deep/er/.x\ny.{DEAD}.tmp")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(["deep", "er", f".x\ny.{DEAD}.tmp"])
    remove_leftovers(tmp_path, inside=True)
    assert names(tmp_path) == ["deep", "er"]
    remove_leftovers(tmp_path / "not there", inside=True)


@pytest.mark.parametrize(
    "name",
    [
        "last.pth",
        f"last.pth.{DEAD}.tmp",
        f".last.pth.{DEAD}",
        ".settings.tmp",
        f".x.{HERE}-1-2.tmp",
        f".x.{HERE}--1-2-0.tmp",
        f".x.{'9' * 9}-1-2-0.tmp",
        f".x.{ELSEWHERE}.tmp",
    ],
)
def test_other_files_stay(tmp_path, name):
    leave(tmp_path / name)
    remove_leftovers(tmp_path, inside=True)
    assert names(tmp_path) == [name]


def test_those_of_a_live_process_stay_until_it_ends(tmp_path):
    path = tmp_path / "last.pth"
    with checkpoint.atomic_path(path) as file:
        remove_leftovers(tmp_path)
        assert file.exists()
    with checkpoint.atomic_folder(tmp_path / "folder") as folder:
        remove_leftovers(tmp_path)
        assert folder.is_dir()
    assert names(tmp_path) == ["folder", "last.pth"]


def test_those_of_another_machine_go_after_a_day(tmp_path):
    leave(tmp_path / f".new.{ELSEWHERE}.tmp", age=80_000)
    leave(tmp_path / f".old.{ELSEWHERE}.tmp", age=90_000)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [f".new.{ELSEWHERE}.tmp"]


def test_a_link_is_removed_and_not_followed(tmp_path):
    leave(tmp_path / "data/x")
    (tmp_path / f".a.{DEAD}.tmp").symlink_to(tmp_path / "data")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["data", "x"]


def test_a_new_folder_removes_those_beside_it(tmp_path):
    leave(tmp_path / f".cache-1.{DEAD}.tmp/values.f16")
    with checkpoint.atomic_folder(tmp_path / "cache-2"):
        pass
    assert names(tmp_path) == ["cache-2"]


def test_names_are_new_each_time_and_short_enough(tmp_path):
    for letter in ("é", "\U0001f600"):  # of two bytes, and of four
        path = tmp_path / (letter * (240 // len(letter.encode())) + ".pth")
        first, second = temporary(path), temporary(path)
        assert first != second
        first.touch()
        assert leftovers._is_left_over(first) is False
