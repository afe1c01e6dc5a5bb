"""Tables on disk: what is marked is whole, and other processes see it."""

import subprocess
import sys

import numpy as np
import pytest
from kd_core.errors import UserError
from kd_core.row_store import RowStore, table_bytes


def values(*rows):
    return np.array([[row, row / 2] for row in rows], np.float16)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "table"


def test_rows_come_back_from_the_disk(folder):
    store = RowStore(folder, 10, 2)
    assert store.filled == 0
    store.write(np.array([7, 2]), values(7, 2))
    store.commit()
    again = RowStore(folder, 10, 2)
    assert again.has(np.array([2, 3, 7])).tolist() == [True, False, True]
    assert np.array_equal(again.read(np.array([2, 7])), values(2, 7))
    assert again.filled == 2


def test_what_was_not_committed_is_not_there(folder):
    store = RowStore(folder, 10, 2)
    store.write(np.array([1]), values(1))
    assert not RowStore(folder, 10, 2).has(np.array([1])).any()


FILL = """
import sys, pathlib, numpy as np
from kd_core.row_store import RowStore
store = RowStore(pathlib.Path(sys.argv[1]), 10, 2)
store.write(np.array([4]), np.array([[4, 2]], np.float16))
store.commit()
"""


def test_rows_of_another_process_are_seen_by_one_that_was_open_before(folder):
    mine = RowStore(folder, 10, 2)
    subprocess.run([sys.executable, "-c", FILL, str(folder)], check=True)
    assert np.array_equal(mine.read(np.array([4])), values(4))
    assert mine.has(np.array([4])).all()


def test_an_empty_table_takes_no_room(folder):
    RowStore(folder, 1_000_000, 100)
    files = [path.stat() for path in folder.iterdir()]
    assert sum(file.st_size for file in files) >= table_bytes(1_000_000, 100) == 201_000_000
    assert sum(512 * file.st_blocks for file in files) < 1_000_000


def test_a_table_of_another_shape_is_refused(folder):
    RowStore(folder, 10, 2)
    with pytest.raises(UserError, match=r"holds a table of \[10, 2\], not \[10, 3\]; remove it"):
        RowStore(folder, 10, 3)


def test_a_table_that_the_disk_cannot_hold_is_refused_before_anything_is_made(folder):
    with pytest.raises(UserError, match=r"full table has .* GB, but the disk has only"):
        RowStore(folder, 10**12, 10**6)
    assert not folder.exists()
