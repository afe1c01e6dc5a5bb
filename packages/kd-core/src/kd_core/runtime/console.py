"""The two consoles: results go to `out`, everything else to `err`."""

import codecs
import contextlib
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import IO, Any

from rich.console import Console

_WIDTH = 110  # without a terminal, rich would cut tables at 80 columns
_ASCII = {"±": "+-"}


class ReaderLeftError(BrokenPipeError):
    """Nobody reads stdout any more, as behind `| head`."""


class _Out(Console):
    def on_broken_pipe(self) -> None:
        raise ReaderLeftError  # rich would exit with status 1


class _OnTerminal(Console):
    @property
    def is_terminal(self) -> bool:
        """Whether bars are shown: FORCE_COLOR does not make a terminal of a file or a pipe."""
        return super().is_terminal and sys.stderr is not None and sys.stderr.isatty()


class _Err:
    """The process's stderr; ignores errors of writing: a run may outlive its log's reader."""

    def write(self, text: str) -> int:
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # no reader, full disk; closed
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def time_left(seconds: float, done: int, left: int) -> str:
    """Return how long the rest takes, such as "ETA 0:12:34"; "done" if nothing is left.

    Args:
        seconds: That what is done took.
        done: Number of steps.
        left: Number of steps.
    """
    rest = round(seconds * left / max(done, 1))
    return f"ETA {rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}" if left else "done"


def errors_ignored() -> IO[str]:
    """Return the process's stderr as a file whose errors of writing are ignored."""
    return _Err()  # type: ignore[return-value]


def _console(*, stderr: bool) -> Console:
    # No markup: names of files and classes may have brackets and colons.
    options: Any = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}
    console = _OnTerminal(file=errors_ignored(), **options) if stderr else _Out(**options)
    if not console.is_terminal:
        console.width = _WIDTH
    return console


out = _console(stderr=False)
err = _console(stderr=True)


def complain(text: str) -> None:
    """Write to stderr, if there is one."""
    stream = _Err()
    stream.write(text)
    stream.flush()


def in_one_line(text: str) -> str:
    """Return a text without line ends, and with control characters made visible."""
    text = re.sub(r"\s*[\r\n]\s*", " ", text.strip())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextlib.contextmanager
def one_line_each() -> Iterator[None]:
    """Inside, each warning takes one line, and characters that the terminal lacks are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="kd_spelt")
    before = warnings.formatwarning, threading.excepthook, sys.unraisablehook
    if sys.stdout is None:  # closed by the parent process
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end of the process
    warnings.formatwarning = _format_warning
    threading.excepthook, sys.unraisablehook = _thread_failed, _ignored
    try:
        yield
    finally:
        warnings.formatwarning, threading.excepthook, sys.unraisablehook = before


def close_stdout() -> None:
    """Discard what is left in the buffer of stdout when its reader is gone."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spelt, end = codecs.backslashreplace_errors(error)
    wanted = error.object[error.start : end]
    return ("".join(_ASCII[c] for c in wanted) if set(wanted) <= set(_ASCII) else spelt), end


codecs.register_error("kd_spelt", _spell)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None
) -> str:
    return f"warning: {in_one_line(str(message))}\n"


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    # TensorBoard's thread keeps its exception for the main thread, which then reports it.
    if getattr(failed.thread, "exception", None) is not failed.exc_value:
        threading.__excepthook__(failed)


def _ignored(failed: Any) -> None:
    # Such as a dead data worker: torch raises at any line, also where Python ignores errors.
    text = f"{failed.exc_type.__name__}: {failed.exc_value}"
    complain(f"warning: ignored: {in_one_line(text)}\n")
