"""Options of a command line, `KEY=VALUE`: values by dotted path."""

import ast
from collections.abc import Sequence
from typing import Any

from kd_core.errors import UserError

_WORDS = {"true": True, "false": False, "none": None}


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Parse `a.b=value` texts: python literals, true/false/none in any case, else strings.

    Raises:
        UserError: If a text has no `=`, no value or an empty key.
    """
    options = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not (equals and value.strip() and all(path.split("."))):
            raise UserError(f"option {text!r}: wanted KEY=VALUE such as trainer.epochs=2")
        options[path] = _parse_value(value.strip())
    return options


def _parse_value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return text
