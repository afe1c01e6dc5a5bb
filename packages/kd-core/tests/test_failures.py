"""What ends a program becomes one line: the cause and the way out."""

import errno
import os
import threading
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
import torch
from kd_core.errors import RunError, UserError
from kd_core.files import checkpoint
from kd_core.files.claim import claimed
from kd_core.files.workdir import cache_folder
from kd_core.runtime.failures import bug, during_run, explain, memory_remedy
from kd_core.runtime.system_errors import SYSTEM
from kd_core.testing.damage import full_disk


@pytest.mark.parametrize("number", sorted(SYSTEM))
def test_what_the_system_refuses_names_the_file_and_the_way_out(number):
    told = explain(OSError(number, os.strerror(number), "runs/x/last.pth"))
    assert str(told) == f"runs/x/last.pth: {'; '.join(SYSTEM[number])}"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_lack_of_memory_names_batch_size_precision_and_accumulation(error):
    told = explain(error, memory_remedy(64, 2, "fp32"))
    assert isinstance(told, RunError)
    for part in ("memory", "batch_size (now 64)", "accumulate (now 2)", "precision=bf16 (now fp32"):
        assert part in str(told)
    assert "\n" not in str(told)


def test_an_allocation_that_fails_here_says_how_much_was_wanted():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**45)
    assert "131072.00 GiB" in str(explain(caught.value))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "data worker 12, 13 died"),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", r"7 was killed \(Killed\)"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is ...", "/dev/shm"),
    ],
)
def test_a_worker_that_torch_lost_is_named(text, wanted):
    with pytest.raises(RunError, match=wanted):
        raise explain(RuntimeError(text)) or AssertionError


@pytest.mark.parametrize(("kind", "status"), [("UserError", 2), ("RunError", 1)])
def test_the_line_is_found_in_the_traceback_of_another_process(kind, status):
    traceback = f"Traceback (most recent call last):\n  ...\nkd_core.errors.{kind}: no a.jpg\n"
    text = f"\n\n-- Process 0 terminated:\n{traceback}"
    told = explain(torch.multiprocessing.ProcessRaisedException(text, 0, 1))
    assert (str(told), told.status) == ("no a.jpg", status)
    caught = UserError(f"Caught {kind} in DataLoader worker process 0.\nOriginal {text.strip()}")
    assert str(explain(caught)) == "no a.jpg"


@pytest.mark.parametrize(("kind", "name"), [("Half", "half"), ("BFloat16", "bfloat16")])
def test_an_operator_that_a_device_lacks_in_half_precision_is_one_line(kind, name):
    told = explain(RuntimeError(f"\"linalg_eigh_cpu\" not implemented for '{kind}'"))
    assert f"has no linalg_eigh_cpu in {name} precision; set trainer.precision=fp32" in str(told)
    assert explain(RuntimeError("\"x\" not implemented for 'Long'")) is None


def test_a_path_with_a_nul_is_one_line():
    with pytest.raises(ValueError, match="null") as caught:
        Path("a\0b").read_text()
    assert "NUL" in str(explain(caught.value))


def test_a_bug_is_no_error_of_the_user():
    with pytest.raises(IndexError) as caught:
        [][0]
    assert explain(caught.value) is None
    assert "test_failures.py" in str(bug(caught.value))


def test_a_failed_run_names_its_seed_and_how_to_continue(tmp_path):
    said = rf"^{tmp_path} \(seed 3\): b: the disk is full.*above$"
    with pytest.raises(RunError, match=said), during_run(tmp_path, 3, ""):
        raise UserError("b: the disk is full; see above")
    (tmp_path / "last.pth").touch()
    said = r"\(seed 3\): .*; then the same command with --resume"
    with pytest.raises(RunError, match=said), during_run(tmp_path, 3, ""):
        raise OSError(errno.EIO, "", "x")


@pytest.fixture
def small_files():
    """Let no file become larger than 4 kB, as a full disk would not."""
    with full_disk(4096):
        yield


@pytest.mark.parametrize("write", ["save", "export", "save_text", "save_json"])
def test_a_file_that_does_not_fit_is_named_and_the_old_one_stays(tmp_path, small_files, write):
    values = {"w": torch.zeros(10**5)}
    arguments = {
        "save": (values, tmp_path / "a.pth"),
        "export": (values, tmp_path / "a", {}),
        "save_text": ("x" * 10**5, tmp_path / "a.pth"),
        "save_json": ({"x": "x" * 10**5}, tmp_path / "a.pth"),
    }[write]
    (tmp_path / "a.pth").write_text("old")
    with pytest.raises(UserError, match=r"a\.pth: the file became larger than is allowed"):
        getattr(checkpoint, write)(*arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]
    assert (tmp_path / "a.pth").read_text() == "old"


def test_safetensors_own_words_for_a_full_disk_are_understood(tmp_path):
    class SafetensorError(Exception):
        pass

    with (
        pytest.raises(UserError, match="a: the disk is full"),
        checkpoint.atomic_path(tmp_path / "a"),
    ):
        raise SafetensorError("I/O error: No space left on device (os error 28)")


def test_another_error_inside_an_atomic_write_stays_what_it_is(tmp_path):
    with pytest.raises(KeyError), checkpoint.atomic_path(tmp_path / "a"):
        raise KeyError("x (28)")


def test_tensorboard_that_cannot_write_is_one_line(tmp_path, small_files, capfd):
    from kd_core.training.loggers import TensorBoardLog

    class Trainer:
        work_dir, epoch = tmp_path, 0
        record = dict.fromkeys((f"{'x' * 100}{number}" for number in range(100)), 1.0)

    log = TensorBoardLog()
    log.before_train(Trainer)
    with pytest.raises(UserError, match="tensorboard: the file became larger"):
        log.after_epoch(Trainer)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("file", "a file"),
        ("file/x", "file is a file"),
        ("x" * 300, "too long"),
        ("a\0b", "null"),
        ("/proc/x", "no such file|not permitted|cannot|denied"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, name, wanted):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=wanted), claimed(tmp_path / name):
        pass


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    told = "the file system is read-only; name a folder"
    with pytest.raises(UserError, match=told), claimed(tmp_path):
        pass


def test_no_home_folder_names_the_variable(monkeypatch):
    monkeypatch.delenv("KD_CACHE", raising=False)

    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(UserError, match="KD_CACHE"):
        cache_folder()


def test_a_thread_that_cannot_start_is_told():
    told = explain(RuntimeError("can't start new thread"))
    assert told is not None
    assert str(told).startswith("no further thread can be started; free memory")


def test_a_pool_of_threads_that_cannot_start_is_told(monkeypatch):
    start = threading.Thread.start

    def refuse_the_second(thread):
        monkeypatch.setattr(threading.Thread, "start", refuse)
        start(thread)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    with pytest.raises(AttributeError) as caught:  # a mistake of Python's own
        ThreadPool(2)
    assert "no further thread can be started" in str(explain(caught.value))
