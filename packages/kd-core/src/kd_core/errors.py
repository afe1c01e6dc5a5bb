"""Errors that are the user's to mend, and the nearest valid name for a misspelt one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(ValueError):
    """Wrong input whose message is all that its author needs.

    The command-line tools print it as one line and exit with status 2; a traceback needs `--debug`.
    """


def nearest(name: str, valid: Iterable[str], *, most: int = 3) -> str:
    """Return a hint such as `; did you mean 'beta'?`, or the valid names when none is close."""
    names = sorted(set(valid))
    close = get_close_matches(name, names, n=most, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    if not names:
        return ""
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"; valid names: {shown}"


@contextmanager
def located(place: str) -> Iterator[None]:
    """Prefix the message of a UserError raised inside with the place that it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
