"""Names that a user gives to terms, teachers and phases."""

from collections.abc import Mapping
from typing import Any

from kd_core.config.node import mapping
from kd_core.errors import UserError

_LONGEST = 100  # they become names of files
_NOT_IN_NAMES = "./\\"


def named(value: Any, where: str) -> Mapping[str, Any]:
    """Return a value that must be a dict by names.

    A name stands in dotted places, in options, in names of modules and in paths of files.

    Raises:
        UserError: If it is something else, or a name could not stand there.
    """
    for name in mapping(value, where):
        text = name if isinstance(name, str) else ""
        fit = text.isprintable() and not set(text) & set(_NOT_IN_NAMES)
        if not (fit and 0 < len(text) <= _LONGEST and text == text.strip()):
            raise UserError(
                f"{where}: {name!r:.60} cannot be a name; wanted a short text without dots and "
                "slashes"
            )
    found: Mapping[str, Any] = value
    return found
