"""Import paths that the user trusts, so that a file may name them; see `kd_core.config.trust`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())


@contextmanager
def trusting(*names: str) -> Iterator[None]:
    """Trust import paths inside a block, as `--trust` does for a whole command.

    Args:
        names: Paths such as `my_module.Net`, each exactly as a file writes it.
    """
    before = _trusted.set(_trusted.get() | set(names))
    try:
        yield
    finally:
        _trusted.reset(before)


def trust(*names: str) -> None:
    """Trust import paths from now on, or until the enclosing `trusting` block ends."""
    _trusted.set(_trusted.get() | set(names))


def trusted_names() -> frozenset[str]:
    """Return the import paths that are trusted now."""
    return _trusted.get()
