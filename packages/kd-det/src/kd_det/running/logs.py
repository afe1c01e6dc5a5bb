"""Detectron2's messages without tracebacks, also on a full disk."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from detectron2.utils import logger as detectron2_logger

_NAMES = ("detectron2", "fvcore")
_LOOP = "detectron2.engine.train_loop"  # logs every exception in training, with its traceback


@contextmanager
def without_tracebacks() -> Iterator[None]:
    """Suppress tracebacks inside; the tool prints one line.

    On a full disk every message to `log.txt` fails, and another write when Python ends.
    """
    loop, before = logging.getLogger(_LOOP), logging.raiseExceptions
    loop.addFilter(_has_no_traceback)
    logging.raiseExceptions = False
    try:
        yield
    finally:
        _close_full_files()
        logging.raiseExceptions = before
        loop.removeFilter(_has_no_traceback)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _close_full_files() -> None:
    """Close files whose last lines cannot be written, so that nothing tries again."""
    for name in _NAMES:
        log = logging.getLogger(name)
        for handler in list(log.handlers):
            stream: Any = getattr(handler, "stream", None)
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except OSError:
                log.removeHandler(handler)
                detectron2_logger._cached_log_stream.cache_clear()
                with suppress(OSError):
                    stream.close()
