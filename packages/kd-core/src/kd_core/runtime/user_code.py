"""Exceptions of a user's own code, in one line with their place in it."""

import re
import sysconfig
import traceback

from kd_core.runtime.failures import first_line

_OURS = re.compile(r"/kd_(core|cls|reid|det)/")
_COMPILED = (".pyx", ".pxd", ".pxi")  # of Cython, whose frames have no folder

FAILURES = (Exception, SystemExit)
"""What a user's code may raise: one that exits must not end a tool in silence."""


def pass_signals(error: BaseException) -> None:
    """Raise an exit again that is not of a user's code: a signal has come, see `runtime.signals`.

    Args:
        error: One of `FAILURES`, in an `except` that would take it for the user's.
    """
    if isinstance(error, SystemExit) and type(error) is not SystemExit:
        raise error


def with_place(error: BaseException) -> str:
    """Return an exception in one line, with its place in the user's file that led to it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
    ]
    libraries = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith(libraries)
        and not frame.filename.endswith(_COMPILED)
        and not _OURS.search(frame.filename)
    ]
    place = next(reversed(own or frames), None)
    said = f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")
    return f"{place.filename}:{place.lineno}: {said}" if place else said
