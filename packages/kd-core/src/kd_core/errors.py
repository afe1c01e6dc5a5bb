"""Errors that the user can correct, and the nearest valid name for a misspelt one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(ValueError):
    """Wrong input, with a message that says how to correct it.

    The command-line tools print it as one line and exit with its status; a traceback needs
    `--debug`.
    """

    status = 2


class RunError(UserError):
    """A run failed after its start: disk, memory, a worker, a loss that is not finite."""

    status = 1
    resumable = True
    """Whether the same command may succeed once the cause is removed."""


class ReportedElsewhereError(UserError):
    """A failure that another process has printed already."""

    def __init__(self, error: BaseException) -> None:
        self.status = getattr(error, "status", RunError.status)
        super().__init__(str(error))


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
    """Prefix the message of a UserError raised inside with its place."""
    try:
        yield
    except ReportedElsewhereError:
        raise
    except UserError as error:
        raise (RunError if isinstance(error, RunError) else UserError)(
            f"{place}: {error}"
        ) from error


def missing_attribute(module: str, name: str, valid: Iterable[str]) -> AttributeError:
    """Return the error of a lazy module that lacks an attribute; it names the nearest public one.

    Args:
        module: Import path of the module.
        name: The attribute that was asked for.
        valid: Public names of the module.
    """
    # Python and its tools ask any module for private names, such as `__path__`: no hint, no work.
    hint = "" if name.startswith("_") else nearest(name, valid)
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}", name=name)
