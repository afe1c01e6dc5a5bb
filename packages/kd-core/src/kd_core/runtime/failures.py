"""Explain errors of users and machines in one line: the cause and the remedy."""

import errno
import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.errors import RunError, UserError
from kd_core.runtime import children
from kd_core.runtime.console import ReaderLeftError
from kd_core.runtime.system_errors import refused

RESUME = "the same command with --resume continues from the last checkpoint"
KILLED = "the system kills when memory is used up: free memory"
FEWER_WORKERS = "set fewer workers (data.workers, DATALOADER.NUM_WORKERS)"
_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|not enough memory|ALLOC_FAILED"
    r"|std::bad_alloc|could not create a (primitive|memory object)",
    re.IGNORECASE,
)
_WANTED = re.compile(r"tried to allocate ([\d.]+) ?(\w+)", re.IGNORECASE)
_KILLED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)(?: is killed by signal: (.+))?"
)
_LAST_LINE = re.compile(r"^(?:\w+\.)*(\w+)(?:: (.*))?$")
_NOT_IN_HALF = re.compile(r'"(\w+)" not implemented for \'(Half|BFloat16)\'')


def explain(error: BaseException, memory: str = "") -> UserError | None:
    """Return the line that explains an exception; None if it is a bug.

    Args:
        error: Any exception that ended a program.
        memory: What the user can change to take less memory.
    """
    out_of_memory = partial(_memory, remedy=memory)
    for kind in (_own, _spawned, out_of_memory, _worker, refused, _nul_in_path, _half):
        explained = kind(error)
        if explained is not None:
            return explained
    return explain(error.__cause__, memory) if error.__cause__ is not None else None


def bug(error: BaseException) -> RunError:
    """Return the line for an unexpected exception: what it is, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{_relative(frame.filename)}:{frame.lineno}" for frame in frames]
    inner = places[-1] if places else "an unknown place"
    ours = [place for place in places if place.startswith("kd_")]
    owner = "kd" if inner.startswith("kd_") else re.split("[/:]", inner)[0]
    caller = f", called at {ours[-1]}" if ours and ours[-1] != inner else ""
    said = f": {first_line(error)}" if str(error).strip() else ""
    return RunError(
        f"{type(error).__name__}{said} ({inner}{caller}). This is a bug of kd"
        f"{'' if owner == 'kd' else f' or of {owner}'}; --debug shows the traceback to report"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text; the last line of a traceback in it."""
    if "(most recent call last)" in str(error):
        return str(error).strip().splitlines()[-1]
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


@contextmanager
def during_run(folder: Path, seed: int, memory: str) -> Iterator[None]:
    """Turn an error inside into a `RunError` that names the run and its seed; let bugs pass.

    Args:
        folder: Of the run.
        seed: Of the run.
        memory: What the user can change to take less memory.
    """
    try:
        yield
    except ReaderLeftError:
        raise  # the run did not fail
    except Exception as error:
        with children.left_alone():
            explained = explain(error, memory)
        if explained is None:
            raise
        has_place = str(explained).startswith(str(folder))
        where = f"seed {seed}" if has_place else f"{folder} (seed {seed})"
        resumable = getattr(explained, "resumable", True) and any(
            (folder / name).is_file() for name in ("last.pth", "last_checkpoint")
        )
        again = f"; then {RESUME}" if resumable and RESUME not in str(explained) else ""
        raise RunError(f"{where}: {explained}{again}") from error


@contextmanager
def memory_explained(memory: str) -> Iterator[None]:
    """Turn a lack of memory inside into a `RunError` that says what to change."""
    try:
        yield
    except Exception as error:
        explained = _memory(error, memory)
        if explained is None:
            raise
        raise explained from error


def memory_remedy(batch_size: object, accumulate: object, precision: object) -> str:
    """Return which options lower the memory of a run, with their present values."""
    return (
        f"lower data.batch_size (now {batch_size}) and raise trainer.accumulate (now {accumulate}) "
        f"by the same factor, or set trainer.precision=bf16 (now {precision})"
    )


def _half(error: BaseException) -> UserError | None:
    """Explain that a device lacks an operator in half precision."""
    missing = _NOT_IN_HALF.search(str(error)) if isinstance(error, RuntimeError) else None
    if missing is None:
        return None
    return UserError(
        f"this device has no {missing[1]} in {missing[2].lower()} precision; set "
        "trainer.precision=fp32"
    )


def _own(error: BaseException) -> UserError | None:
    if not isinstance(error, UserError):
        return None
    return _from_traceback(str(error)) or error  # a torch worker wraps its exception


def _spawned(error: BaseException) -> UserError | None:
    """Explain what a process of `torch.multiprocessing.spawn`, or a data worker, raised."""
    if _is_torch(error, "ProcessExitedException"):
        died: Any = error
        how = died.signal_name or f"exit status {died.exit_code}"
        return RunError(f"rank {died.error_index} died ({how}); {RESUME}")
    if _is_torch(error, "ProcessRaisedException"):
        return _from_traceback(str(error))
    return None


def _is_torch(error: BaseException, name: str) -> bool:
    """Return whether an exception is torch's of that name, without importing torch to see."""
    kinds = type(error).__mro__
    return any(kind.__name__ == name and kind.__module__.startswith("torch") for kind in kinds)


def _from_traceback(text: str) -> UserError | None:
    """Return the UserError that the text of a traceback ends in."""
    if "Traceback (most recent call last)" not in text:
        return None
    last = _LAST_LINE.match(text.strip().splitlines()[-1])
    if last is None or ("kd_core.errors" not in text and "UserError" not in text):
        return None
    kind = RunError if last[1] in ("RunError", "NonFiniteLossError") else UserError
    return kind(last[2] or last[1])


def _memory(error: BaseException, remedy: str) -> UserError | None:
    text = str(error)
    of_torch = _is_torch(error, "OutOfMemoryError")
    kind = isinstance(error, MemoryError) or of_torch
    by_text = isinstance(error, RuntimeError) and _NO_MEMORY.search(text)
    if not (kind or by_text or (isinstance(error, OSError) and error.errno == errno.ENOMEM)):
        return None
    on_device = of_torch or "CU" in text
    where = "of the GPU" if on_device else "of the host"
    wanted = _WANTED.search(text)
    size = f" ({_size(wanted[1], wanted[2])} more were requested)" if wanted else ""
    return RunError(
        f"the memory {where} is used up{size}; "
        f"{remedy or 'use smaller batches or images, or a machine with more memory'}"
    )


def _size(number: str, unit: str) -> str:
    return f"{float(number) / 2**30:.2f} GiB" if unit == "bytes" else f"{number} {unit}"


def _worker(error: BaseException) -> UserError | None:
    """Explain the end of a data worker; torch raises it at any line."""
    if not isinstance(error, RuntimeError):
        return None
    found = _KILLED.search(str(error))
    if found is None:
        return None
    how = (found[2] or "").partition(". ")[0].rstrip(". ")
    if "Bus error" in how:
        how, remedy = "Bus error", "shared memory (/dev/shm) is full: make it larger"
    else:
        remedy = KILLED
    return RunError(
        f"data worker {found[1].strip()} {f'was killed ({how})' if how else 'died'}; {remedy}, or "
        f"{FEWER_WORKERS}"
    )


def _nul_in_path(error: BaseException) -> UserError | None:
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return UserError("a path has a NUL character, which no file can have; leave it out")
    return None


def _relative(file: str) -> str:
    """Return a source file's place in its library, as `torch/nn/modules/conv.py`."""
    libraries = (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))
    for folder in libraries:
        if file.startswith(f"{folder}/"):
            return file.removeprefix(f"{folder}/")
    parts = Path(file).parts
    ours = [number for number, part in enumerate(parts) if part.startswith("kd_")]
    return "/".join(parts[ours[-1] :] if ours else parts[-1:])
