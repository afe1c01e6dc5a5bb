"""A folder belongs to one live run; the claim of a dead one is taken over by one other."""

import json
import multiprocessing
import os
import signal
import socket
import stat
import threading
import time
from contextlib import contextmanager

import pytest
from kd_core.errors import UserError
from kd_core.files import claim, claim_file
from kd_core.files.claim import claimed, claimed_first, claimed_unless_made, is_claimed
from kd_core.files.claim_file import Claim, Owner, claims_in, take
from kd_core.runtime import distributed
from kd_core.runtime.processes import Process, this_process
from kd_core.testing.damage import full_disk

FORK = multiprocessing.get_context("fork")
RACERS = 20


@contextmanager
def another(work, *arguments):
    """Run a function in another process, which is killed in the end."""
    process = FORK.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def hold(folder, ready, seconds=60.0):
    with claimed(folder):
        ready.set()
        time.sleep(seconds)


@contextmanager
def held_elsewhere(folder):
    """Let another process own a folder."""
    ready = FORK.Event()
    with another(hold, folder, ready) as process:
        assert ready.wait(20)
        yield process


def leave_claim(folder, *, number=1, age=0.0, **changed):
    """Write a claim as another process has left it."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"machine": "0" * 8, "pid": 77, "start": 5, "host": "elsewhere", "token": "x"}
    path = folder / f".claim-{number}"
    path.write_text(json.dumps({**facts, "since": "2026-01-02T03:04:05.678+00:00", **changed}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def leave_dead_claim(folder, **changed):
    """Write the claim of a process of this machine that has ended."""
    process = FORK.Process(target=int)
    process.start()
    machine, _, start = this_process()
    pid = process.pid
    process.join()
    return leave_claim(folder, machine=machine, pid=pid, start=start, **changed)


def ours(folder):
    """Return whether the folder can be claimed; releases it."""
    found = take(folder)
    if isinstance(found, Claim):
        found.release()
    return isinstance(found, Claim)


class TestAClaim:
    def test_leaves_nothing_not_even_the_folders_it_made(self, tmp_path):
        with claimed(tmp_path / "a/b"):
            assert is_claimed(tmp_path / "a/b")
        assert list(tmp_path.iterdir()) == []

    def test_keeps_what_was_written_and_what_was_there(self, tmp_path):
        (tmp_path / "old").mkdir()
        for name in ("old", "a/b"):
            with claimed(tmp_path / name):
                (tmp_path / name / "x").touch()
        with claimed(tmp_path / "old/new"):
            pass
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "old", "x", "x"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_ends_with_an_error_too(self, tmp_path, error):
        with pytest.raises(error), claimed(tmp_path):
            raise error
        assert not is_claimed(tmp_path)

    def test_of_a_live_process_is_refused_in_one_line_that_says_who(self, tmp_path):
        with held_elsewhere(tmp_path) as process:
            with pytest.raises(UserError) as caught, claimed(tmp_path):
                pass
            text = str(caught.value)
            assert f"{tmp_path} is in use by another run: process {process.pid}" in text
            assert f"on {socket.gethostname()}, since 20" in text
            assert "\n" not in text

    def test_of_a_killed_process_is_void_at_once(self, tmp_path):
        with held_elsewhere(tmp_path) as process:
            os.kill(process.pid, signal.SIGKILL)  # and it is not collected: a zombie
            deadline = time.monotonic() + 10
            while is_claimed(tmp_path) and time.monotonic() < deadline:
                time.sleep(0.01)
            with claimed(tmp_path):
                assert len(claims_in(tmp_path)) == 1

    def test_of_a_stopped_process_holds(self, tmp_path, monkeypatch):
        monkeypatch.setattr(claim_file, "EXPIRES", 0.0)
        with held_elsewhere(tmp_path) as process:
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.2)
            assert not ours(tmp_path)

    def test_of_a_number_that_another_process_has_now_is_void(self, tmp_path):
        machine, pid, start = this_process()
        leave_claim(tmp_path, machine=machine, pid=pid, start=start + 1)
        assert ours(tmp_path)
        leave_claim(tmp_path, machine=machine, pid=pid, start=start)
        assert not ours(tmp_path)

    @pytest.mark.parametrize(("age", "free"), [(0, False), (115, False), (125, True), (-60, False)])
    def test_of_another_machine_holds_until_it_is_silent(self, tmp_path, age, free):
        leave_claim(tmp_path, age=age)
        assert ours(tmp_path) is free
        assert [path.name for path in tmp_path.iterdir()] == ([] if free else [".claim-1"])

    def test_of_another_machine_is_waited_for_by_a_run_that_was_started_again(
        self, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(claim, "POLL", 0.02)
        leave_claim(tmp_path, age=119.8)
        with claimed(tmp_path, patient=True):
            assert {path.name for path in tmp_path.iterdir()} == {".claim-2"}
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("this run: waiting for process ")
        monkeypatch.setattr(claim, "EXPIRES", -60.0)  # it does not wait for a live run forever
        monkeypatch.setattr(claim, "HEARTBEAT", 30.05)
        leave_claim(tmp_path, age=0)
        with (
            pytest.raises(UserError, match="is in use by another run"),
            claimed(tmp_path, patient=True),
        ):
            pass

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            '{"machine": "00000000", "pid": -1, "start": 0, "host": "x", "since": "2026-01-01"}',
            '{"machine": "00000000", "pid": 1, "start": 0, "host": 5, "since": "2026-01-01"}',
            '{"machine": "00000000", "pid": 1, "start": 0, "host": "\\u001b[31m", "since": "x"}',
            '{"machine": "00000000", "pid": Infinity, "start": 0, "host": "x", "since": "x"}',
            "[" * 5000,
        ],
    )
    def test_that_says_nothing_holds_until_it_is_silent(self, tmp_path, text):
        path = leave_claim(tmp_path)
        path.write_text(text)
        with (
            pytest.raises(UserError, match="process unknown on an unknown host"),
            claimed(tmp_path),
        ):
            pass
        os.utime(path, (time.time() - 200,) * 2)
        assert ours(tmp_path)

    def test_is_kept_fresh(self, tmp_path, monkeypatch):
        monkeypatch.setattr(claim_file, "HEARTBEAT", 0.02)
        with claimed(tmp_path):
            os.utime(tmp_path / ".claim-1", (0, 0))
            time.sleep(0.3)
            assert (tmp_path / ".claim-1").stat().st_mtime > 0

    def test_that_was_removed_by_hand_comes_back(self, tmp_path, monkeypatch):
        monkeypatch.setattr(claim_file, "HEARTBEAT", 0.02)
        with claimed(tmp_path):
            (tmp_path / ".claim-1").unlink()
            time.sleep(0.3)
            assert is_claimed(tmp_path)
        assert not is_claimed(tmp_path)

    def test_that_another_took_over_ends_the_process(self, tmp_path, monkeypatch):
        monkeypatch.setattr(claim_file, "HEARTBEAT", 0.02)
        with held_elsewhere(tmp_path) as process:
            leave_claim(tmp_path, number=2)
            process.join(10)
            assert process.exitcode == 1
            assert claims_in(tmp_path) == [1, 2] or claims_in(tmp_path) == [2, 1]

    def test_has_ordinary_permissions(self, tmp_path):
        with claimed(tmp_path):
            (tmp_path / "plain").touch()
            modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert len(modes) == 1

    def test_removes_what_killed_writers_left(self, tmp_path):
        left = tmp_path / "a" / f".last.pth.{this_process().machine}-4194303-7-0.tmp"
        left.parent.mkdir()
        left.touch()
        with claimed(tmp_path):
            assert not left.exists()


class TestRelatives:
    def test_a_folder_inside_one_that_is_in_use_is_refused(self, tmp_path):
        with held_elsewhere(tmp_path / "a"):
            with pytest.raises(UserError, match=r"seed-1 is in .*a, which is in use by another"):
                take(tmp_path / "a/seed-1")
            assert ours(tmp_path / "b")

    def test_a_folder_with_a_run_inside_it_is_refused(self, tmp_path):
        with held_elsewhere(tmp_path / "a/seed-0"):
            assert isinstance(take(tmp_path / "a"), Owner)
            assert ours(tmp_path / "b")
        assert ours(tmp_path / "a")

    def test_a_run_may_claim_what_is_inside_its_own_folder(self, tmp_path):
        with claimed(tmp_path), claimed(tmp_path / "phase"):
            assert is_claimed(tmp_path / "phase")


class TestMistakes:
    def test_a_file_in_its_place_is_named(self, tmp_path):
        (tmp_path / "x").touch()
        for folder in (tmp_path / "x", tmp_path / "x/y"):
            with pytest.raises(UserError, match=r"x is a file; a run needs a folder"):
                take(folder)

    def test_a_link_to_nothing_is_named(self, tmp_path):
        (tmp_path / "gone").symlink_to("nowhere")
        (tmp_path / "loop").symlink_to("loop")
        for folder in (tmp_path / "gone", tmp_path / "loop/x"):
            with pytest.raises(
                UserError, match=r"(gone|loop) is a link to nothing; name another folder"
            ):
                take(folder)

    def test_what_the_system_refuses_is_one_line(self, tmp_path):
        for name, why in (("x" * 300, "the path is too long"), ("a\0b", "null byte")):
            with pytest.raises(UserError, match=why) as caught:
                take(tmp_path / name)
            assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_leaves_no_claim(self, tmp_path):
        with (
            full_disk(8),
            pytest.raises(UserError, match="the file became larger than is allowed"),
        ):
            take(tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", [".claim-007", ".claim-", ".claim-x", ".claim-0", ".claim-²"])
    def test_files_with_other_names_are_left_alone(self, tmp_path, name):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
        assert ours(tmp_path)
        assert (tmp_path / name).exists()

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
    def test_what_is_no_file_is_named_and_not_waited_for(self, tmp_path, make):
        make(tmp_path / ".claim-3")
        with pytest.raises(
            UserError, match=r"\.claim-3 is not a claim of a run; move it elsewhere"
        ):
            take(tmp_path)


def race(folders, start, taken, over):
    for folder in folders:
        start.wait()
        try:
            with claimed(folder):
                taken.put(os.getpid())
                over.wait()
        except UserError:
            taken.put(None)
            over.wait()


class TestRaces:
    @pytest.mark.parametrize("leave", [lambda folder: None, leave_dead_claim])
    def test_of_many_at_once_exactly_one_gets_the_folder(self, tmp_path, leave):
        folders = [tmp_path / str(number) for number in range(5)]
        start, over, taken = FORK.Barrier(RACERS), FORK.Barrier(RACERS + 1), FORK.Queue()
        for folder in folders:
            leave(folder)
        racers = [
            FORK.Process(target=race, args=(folders, start, taken, over), daemon=True)
            for _ in range(RACERS)
        ]
        for racer in racers:
            racer.start()
        for _ in folders:
            winners = [pid for _ in racers if (pid := taken.get(timeout=60))]
            over.wait(60)
            assert len(winners) == 1
        for racer in racers:
            racer.join(20)

    def test_who_looked_long_ago_does_not_take_over_from_a_later_run(self, tmp_path):
        leave_dead_claim(tmp_path)  # one racer looks, and is then slow
        with claimed(tmp_path):
            assert claims_in(tmp_path) == [2]
            assert not claim_file._follow(tmp_path, 1, "slow")  # the number is taken
        assert not claim_file._follow(tmp_path, 1, "slow")  # or was taken, and all is over
        assert claims_in(tmp_path) == []
        with claimed(tmp_path):
            assert claims_in(tmp_path) == [1]  # a live one of the number that was seen dead
            assert not claim_file._follow(tmp_path, 1, "slow")
            assert claims_in(tmp_path) == [1]

    def test_who_saw_an_old_claim_does_not_claim_below_a_newer_one(self, tmp_path):
        leave_dead_claim(tmp_path)
        leave_claim(tmp_path, number=3)
        assert not claim_file._follow(tmp_path, 1, "slow")
        assert sorted(claims_in(tmp_path)) == [1, 3]

    def test_who_saw_nothing_does_not_claim_below_another(self, tmp_path):
        leave_dead_claim(tmp_path)
        with claimed(tmp_path):
            assert not claim_file._follow(tmp_path, 0, "slow")
            assert claims_in(tmp_path) == [2]


class TestTheFirstOfSeveral:
    def test_is_neither_taken_nor_in_use(self, tmp_path):
        folders = [tmp_path / name for name in "abc"]
        with held_elsewhere(folders[1]), claimed_first(folders, lambda f: f.name == "a") as found:
            assert found == folders[2]
            assert is_claimed(found)
        assert not folders[2].exists()

    def test_is_looked_at_again_once_it_is_ours(self, tmp_path):
        answers = iter([False, True, False, False])  # a run ended in the first between two looks
        with claimed_first([tmp_path / "a", tmp_path / "b"], lambda folder: next(answers)) as found:
            assert found.name == "b"
            assert not (tmp_path / "a").exists()


def make_slowly(product, ready, seconds):
    with claimed_unless_made(product, "the teacher") as to_make:
        assert to_make
        ready.set()
        time.sleep(seconds)
        product.write_text("made elsewhere")


class TestASharedProduct:
    @pytest.fixture(autouse=True)
    def _quickly(self, monkeypatch):
        monkeypatch.setattr(claim, "POLL", 0.05)

    def test_is_made_once(self, tmp_path):
        product = tmp_path / "teacher/result.json"
        for expected in (True, False):
            with claimed_unless_made(product, "the teacher") as to_make:
                assert to_make is expected
                assert is_claimed(product.parent) is expected
                product.touch()

    def test_is_waited_for_and_one_line_says_so(self, tmp_path, capsys):
        product, ready = tmp_path / "teacher/result.json", FORK.Event()
        with another(make_slowly, product, ready, 0.5) as process:
            assert ready.wait(20)
            with claimed_unless_made(product, "the teacher") as to_make:
                assert not to_make
        assert product.read_text() == "made elsewhere"
        said = capsys.readouterr().err
        assert said.count("the teacher: waiting for process") == 1
        assert f"process {process.pid} on" in said

    def test_of_a_run_that_dies_is_made_by_the_one_that_waits(self, tmp_path):
        product, ready = tmp_path / "teacher/result.json", FORK.Event()
        with another(make_slowly, product, ready, 60.0) as process:
            assert ready.wait(20)
            threading.Timer(0.3, process.kill).start()
            with claimed_unless_made(product, "the teacher") as to_make:
                assert to_make

    def test_is_never_waited_for_in_the_run_that_makes_it(self, tmp_path):
        product = tmp_path / "result.json"
        with (
            claimed(tmp_path),
            pytest.raises(UserError, match="this run itself makes it"),
            claimed_unless_made(product, "the teacher"),
        ):
            pass


class TestProcesses:
    def test_this_one_is_alive(self):
        assert this_process().is_dead is False

    def test_another_of_its_number_is_dead(self):
        machine, pid, start = this_process()
        assert Process(machine, pid, start + 1).is_dead
        assert Process(machine, pid, 0).is_dead is False  # where starts cannot be read

    def test_numbers_that_no_process_has_are_dead(self):
        machine = this_process().machine
        assert Process(machine, 4194304, 1).is_dead  # above the largest
        assert Process(machine, 10**30, 1).is_dead

    def test_of_another_machine_nothing_is_known(self):
        assert Process("f" * 8, os.getpid(), this_process().start).is_dead is None


def test_one_process_is_rank_0():
    assert distributed.on_rank_0(lambda: 3) == 3
