"""Errors of the operating system: what is wrong, and what to do."""

import errno
import re
from pathlib import Path

from kd_core.errors import RunError, UserError

_ELSEWHERE = "name a folder that can be written (--work-dir)"
# `multiprocessing.pool` turns the first into the second.
_NO_THREAD = re.compile("can't start new thread|'DummyProcess' object has no attribute 'terminate'")
_MORE_THREADS = "free memory, raise the limit of processes (ulimit -u), or set fewer workers"
_FREE = "free space, or write elsewhere (--work-dir)"

SYSTEM = {
    errno.ENOSPC: ("the disk is full", _FREE),
    errno.EDQUOT: ("the disk quota is used up", _FREE),
    errno.EFBIG: ("the file became larger than is allowed here (ulimit -f)", "raise that limit"),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.EACCES: ("permission denied", "change its permissions, or name another"),
    errno.EPERM: ("not permitted", "change its permissions, or name another"),
    errno.EIO: ("the disk or its connection failed", "check the disk"),
    errno.ESTALE: ("the network drive lost the file", "mount it again"),
    errno.ENAMETOOLONG: ("the path is too long", "choose shorter names"),
    errno.ELOOP: ("a link leads back to itself", "repair the link"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "name another folder"),
    errno.EEXIST: ("there is a file already where a folder is wanted", "name another folder"),
    errno.EISDIR: ("this is a folder; a file is wanted", "name a file"),
    errno.ENOENT: ("there is no such file or folder", "check its name"),
    errno.EMFILE: ("too many open files", "raise that limit (ulimit -n), or use fewer workers"),
    errno.ENFILE: ("too many open files on this machine", "close other programs"),
    errno.EAGAIN: ("no further process can be started", "raise that limit (ulimit -u)"),
}
"""What is wrong and what to do, by error number."""


def cannot_write(path: Path, error: BaseException) -> UserError | None:
    """Return why a file could not be written, if the exception is about that.

    torch and safetensors write in C++ or Rust, and hide the system's error in their own text.
    """
    seen: BaseException | None = error
    while seen is not None:
        number = getattr(seen, "errno", None) if isinstance(seen, OSError) else _number(seen)
        if number in SYSTEM:
            return UserError(f"{path}: {_sentence(number)}")
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, OSError):
        return UserError(f"{path}: cannot be written ({error.strerror or error})")
    if re.search(r"PytorchStreamWriter|unexpected pos|iostream error", str(error)):
        return UserError(f"{path}: cannot be written, the disk may be full; {_FREE}")
    return None


def refused(error: BaseException) -> UserError | None:
    """Explain an error of the operating system; None if it is another error."""
    if isinstance(error, RuntimeError) and "items of ancdata" in str(error):
        return RunError(_sentence(errno.EMFILE))
    if _NO_THREAD.search(str(error)) and isinstance(error, RuntimeError | AttributeError):
        return RunError(f"no further thread can be started; {_MORE_THREADS}")
    if not isinstance(error, OSError):
        return None
    file = "" if error.filename is None else f"{_path(error.filename)}: "
    if error.errno in SYSTEM:
        return UserError(f"{file}{_sentence(error.errno)}")
    return UserError(f"{file}{error.strerror or error or type(error).__name__}")


def _number(error: BaseException) -> int | None:
    """Return the error number of the system from a library's text."""
    found = re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]|: [A-Z][\w ]+ \((\d+)\)\s*$", str(error))
    return int(next(filter(None, found.groups()))) if found else None


def _sentence(number: int | None) -> str:
    what, remedy = SYSTEM[number or 0]
    return f"{what}; {remedy}"


def _path(name: object) -> str:
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)
