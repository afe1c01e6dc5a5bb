"""Options of a config apart from those of its teachers' own training."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any


def split_options(
    options: Mapping[str, Any], names: Collection[str]
) -> tuple[Mapping[str, Any], dict[str, dict[str, Any]]]:
    """Return the options of a config, and by place those of its teachers' own training."""
    own: dict[str, Any] = {}
    of_teachers: dict[str, dict[str, Any]] = {}
    for option, value in options.items():
        parts = option.split(".")
        inner = {"teacher": 1, "teachers": 2}.get(parts[0], len(parts))
        misspelt = inner + 1 < len(parts) and get_close_matches(parts[inner], names, 1, 0.85)
        if inner < len(parts) and (parts[inner] in names or misspelt):
            of_one = of_teachers.setdefault(".".join(parts[:inner]), {})
            of_one[".".join(parts[inner:])] = value
        else:
            own[option] = value
    return own, of_teachers
