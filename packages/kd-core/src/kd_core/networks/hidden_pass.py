"""A pass of a network that no tap records."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

_threads: list[int] = []


@contextmanager
def hidden_from_taps() -> Iterator[None]:
    """Run a network once more, beside the pass that taps record, in this thread alone."""
    _threads.append(get_ident())
    try:
        yield
    finally:
        _threads.remove(get_ident())


def is_hidden() -> bool:
    """Return whether taps must not record what runs now."""
    return bool(_threads) and get_ident() in _threads
