"""Lines of JSON for programs: `--json`."""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from kd_core.runtime.console import ReaderLeftError, errors_ignored

_streams: list[TextIO] = []


@contextmanager
def on_stdout(wanted: bool) -> Iterator[None]:
    """Inside, stdout is for lines of JSON alone; what others print goes to stderr.

    Args:
        wanted: Whether it is asked for; else nothing changes, and `say` does nothing. Nor does
            anything change inside another such block.
    """
    if not wanted or _streams:
        yield
        return
    _streams.append(sys.stdout)
    try:
        with redirect_stdout(errors_ignored()):
            yield
    finally:
        _streams.pop()


def is_wanted() -> bool:
    """Return whether lines are asked for."""
    return bool(_streams)


def say(event: str, **values: Any) -> None:
    """Write a line, at once, if they are asked for: `{"event": ..., ...}`.

    Args:
        event: "epoch", "iteration" or "result".
        values: In JSON's types. What is not a finite number, which JSON lacks, becomes null.

    Raises:
        ReaderLeftError: If nobody reads them any more.
    """
    if _streams:
        line = json.dumps(_strict({"event": event, **values}), allow_nan=False)
        try:
            _streams[-1].write(line + "\n")
            _streams[-1].flush()
        except BrokenPipeError as error:
            raise ReaderLeftError from error


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
