"""Paths of a command line: what is missing is said with the nearest name, before any work."""

from pathlib import Path

import pytest
from kd_core.config.paths import require_configs
from kd_core.errors import UserError
from kd_core.runtime.paths import nearest_path, require_paths


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make a working folder with a few files in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("data/student.py", "data/photo.jpg", "data/.hidden.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("data/studnt.py", "; did you mean 'student.py'?"),
        ("dta/student.py", "; did you mean 'data'?"),
        ("data/phto.jpg", "; did you mean 'photo.jpg'?"),
        ("data/zzz", "; valid names: photo.jpg, student.py"),
        ("data/student.py/x", ""),
    ],
)
def test_the_nearest_path_is_named(folder, path, hint):
    if hint:
        assert nearest_path(Path(path)) == hint
    with pytest.raises(UserError, match=f"there is no image {path}"):
        require_paths("image", [None, "data", path])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data/studnt.py", "there is no config file data/studnt.py; did you mean 'student.py'?"),
        ("data/photo.jpg", "data/photo.jpg: a config file is a python file"),
        ("data/phto.jpg", "did you mean|valid names: student.py$"),
        ("data", "data is a folder, not a config file"),
        ("", "there is no config file"),
    ],
)
def test_what_is_not_a_config_file_is_refused(folder, path, message):
    with pytest.raises(UserError, match=message):
        require_configs(["data/student.py", path])


def test_what_exists_is_taken(folder):
    require_paths("image", ["data/photo.jpg", "data", None])
    require_configs(["data/student.py", folder / "data/student.py"])
