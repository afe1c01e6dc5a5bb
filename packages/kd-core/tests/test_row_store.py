"""Tables on disk: what is marked is whole, and other processes see it."""

import multiprocessing
import os
import random
import time

import numpy as np
import pytest
from kd_core.errors import UserError
from kd_core.files import row_store
from kd_core.files.row_store import RowStore, table_bytes
from kd_core.testing.damage import cut, flip_bit, full_disk, refusal, restored

FORK = multiprocessing.get_context("fork")


def values(*rows):
    return np.array([[row, row / 2] for row in rows], np.float16)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "table"


def test_rows_come_back_from_the_disk(folder):
    store = RowStore(folder, 10, 2)
    assert store.filled == 0
    store.write(np.array([7, 2]), values(7, 2))
    again = RowStore(folder, 10, 2)
    assert again.has(np.array([2, 3, 7])).tolist() == [True, False, True]
    assert np.array_equal(again.read(np.array([2, 7])), values(2, 7))
    assert again.filled == 2


def fill(folder):
    RowStore(folder, 10, 2).write(np.array([4]), values(4))


def test_rows_of_another_process_are_seen_by_one_that_was_open_before(folder):
    mine = RowStore(folder, 10, 2)
    another = FORK.Process(target=fill, args=(folder,))
    another.start()
    another.join(60)
    assert another.exitcode == 0
    assert np.array_equal(mine.read(np.array([4])), values(4))
    assert mine.has(np.array([4])).all()


def test_an_empty_table_takes_no_room(folder):
    RowStore(folder, 1_000_000, 100)
    files = [path.stat() for path in folder.iterdir()]
    assert sum(file.st_size for file in files) >= table_bytes(1_000_000, 100) == 204_000_000
    assert sum(512 * file.st_blocks for file in files) < 1_000_000


def test_a_table_of_another_shape_is_refused(folder):
    RowStore(folder, 10, 2)
    with pytest.raises(
        UserError, match=r"holds a table of \[10, 2\], not \[10, 3\]; move it elsewhere"
    ):
        RowStore(folder, 10, 3)


def test_a_table_that_the_disk_cannot_hold_is_refused_before_anything_is_made(folder):
    with pytest.raises(UserError, match=r"full table has .* GB, but the disk has only"):
        RowStore(folder, 10**12, 10**6)
    assert not folder.exists()


def test_a_row_that_is_there_is_not_written_again(folder):
    store, other = RowStore(folder, 10, 2), RowStore(folder, 10, 2)
    store.write(np.array([3, 4]), values(3, 4))
    other.write(np.array([4, 5]), values(40, 5))
    assert np.array_equal(RowStore(folder, 10, 2).read(np.array([3, 4, 5])), values(3, 4, 5))


@pytest.mark.parametrize("name", ["values.f16", "sums.u32", "shape.json"])
def test_no_flipped_bit_gives_other_values(folder, name):
    rows = np.array([0, 1, 2, 5, 9])
    RowStore(folder, 10, 2).write(rows, values(*rows))
    path, rng = folder / name, random.Random(2)

    def read():
        store = RowStore(folder, 10, 2)
        there = rows[store.has(rows)]
        found.append((there, store.read(there)))

    for place in range(path.stat().st_size):
        found = []
        with restored(path):
            flip_bit(path, rng, at=place)
            line = refusal(read)
            assert line or np.array_equal(found[0][1], values(*found[0][0]))
            assert not line or (str(folder) in line and "move the folder elsewhere" in line)
            row = place // 4
            assert line or name == "shape.json" or row not in rows


@pytest.mark.parametrize("name", ["values.f16", "sums.u32", "shape.json"])
def test_a_table_that_was_cut_is_refused(folder, name):
    RowStore(folder, 10, 2)
    for length in (0, 1, -2, -3):
        with restored(folder / name):
            cut(folder / name, to=length)
            assert "damaged" in (refusal(lambda: RowStore(folder, 10, 2), folder / name) or "")


def test_a_mark_of_a_row_that_was_never_written_is_refused(folder):
    RowStore(folder, 10, 2)
    flip_bit(folder / "sums.u32", at=4 * 7)
    store = RowStore(folder, 10, 2)
    assert store.has(np.array([7])).all()
    with pytest.raises(UserError, match=r"damaged \(the checksum of row 7 does not match"):
        store.read(np.array([6, 7])[1:])


def test_a_checksum_that_is_just_being_written_is_waited_for(folder, monkeypatch):
    RowStore(folder, 10, 2).write(np.array([7]), values(7))
    store, path = RowStore(folder, 10, 2), folder / "sums.u32"
    whole = path.read_bytes()
    flip_bit(path, at=29)
    monkeypatch.setattr(row_store.time, "sleep", lambda _: path.write_bytes(whole))
    assert np.array_equal(store.read(np.array([7])), values(7))


def test_a_full_disk_is_told_in_a_line_and_what_was_written_stays(folder):
    store = RowStore(folder, 100, 100)
    values = np.ones((100, 100), np.float16)
    with full_disk(10_000):
        store.write(np.arange(40), values[:40])
        with pytest.raises(UserError) as caught:
            store.write(np.arange(100), values)
    assert str(caught.value).startswith(f"{folder}: cannot be written (File too large); make room")
    store = RowStore(folder, 100, 100)
    assert store.has(np.arange(100)).tolist() == [True] * 40 + [False] * 60
    store.write(np.arange(100), np.full((100, 100), 2, np.float16))
    found = store.read(np.arange(100))
    assert (found[:40] == 1).all()
    assert (found[40:] == 2).all()


def write_on(folder, ready):
    store = RowStore(folder, 20_000, 500)
    rng = np.random.default_rng(os.getpid())
    ready.set()
    while True:  # values differ from process to process, as those of bf16 do
        rows = rng.integers(0, 20_000, 64)
        store.write(rows, np.full((64, 500), rng.random(), np.float16))
        store.read(rows)


def test_writers_that_are_killed_leave_whole_rows_or_none(folder):
    rng = random.Random(0)
    for _ in range(3):
        started = [FORK.Event() for _ in range(2)]
        writers = [
            FORK.Process(target=write_on, args=(folder, ready), daemon=True) for ready in started
        ]
        for writer in writers:
            writer.start()
        assert all(ready.wait(60) for ready in started)
        time.sleep(rng.random() / 4)
        for writer in writers:
            assert writer.is_alive()
            writer.kill()
            writer.join()
        store = RowStore(folder, 20_000, 500)
        there = np.flatnonzero(store.has(np.arange(20_000)))
        found = store.read(there)
        assert (found == found[:, :1]).all()
    assert store.filled
