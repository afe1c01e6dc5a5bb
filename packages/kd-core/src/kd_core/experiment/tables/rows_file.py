"""What a comparison's command line and file say of its rows."""

from argparse import Namespace
from collections.abc import Collection, Mapping
from typing import Any

from kd_core.config.reading import load_config
from kd_core.errors import UserError, nearest

_NAMES = ("files", "rows", "metrics", "against")

RowFiles = dict[str, tuple[list[str], list[str]]]
"""By label, the config files and the options of a row."""


def read_rows_file(file: str | None) -> dict[str, Any]:
    """Return what a table's file has; nothing if there is none.

    Raises:
        UserError: If an entry is not what it must be.
    """
    given = load_config(file, known=_NAMES) if file else {}
    for name in ("rows", "metrics", "against"):
        value = given.get(name, {})
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise UserError(f"{file}: {name}: wanted a dict by text, got {value!r:.60}")
        if name != "rows" and not all(isinstance(text, str) for text in value.values()):
            raise UserError(f"{file}: {name}: wanted a text for each key, got {value!r:.60}")
    return given


def row_files(args: Namespace, given: Mapping[str, Any]) -> RowFiles:
    """Return the files and options of every row, of the table's file and of `--sweep`.

    Raises:
        UserError: If a row is not a list of files, or is compared with one that does not exist.
    """
    rows = {label: _row(node, label) for label, node in given.get("rows", {}).items()}
    if args.sweep:
        key, *values = args.sweep
        if len(set(values)) < max(len(values), 1):
            problem = "names a value twice" if values else "has no values"
            raise UserError(f"--sweep {key} {problem}; each row has a value of its own")
        rows |= {f"{key} = {value}": ([], [f"{key}={value}"]) for value in values}
    for label in [*given.get("against", {}), *given.get("against", {}).values()]:
        if label not in rows:
            raise UserError(f"against: there is no row {label!r}{nearest(label, rows)}")
    return rows


def refuse_overlap(label: str, own: Collection[str], of_line: Collection[str]) -> None:
    """Reject options of the command line that hold for all rows where a row has its own value.

    The last would win, and rows of other labels would be the same run.

    Raises:
        UserError: Names both.
    """
    for key in own:
        for other in of_line:
            if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                raise UserError(
                    f"--cfg-options {other}: row {label!r} has its own {key}; leave one of them out"
                )


def _row(node: Any, label: str) -> tuple[list[str], list[str]]:
    """Return the files and options of a row."""
    parts = node if isinstance(node, Mapping) else {"files": node}
    if unknown := set(parts) - {"files", "options"}:
        name = unknown.pop()
        raise UserError(f"rows[{label!r}]: unknown {name!r}{nearest(name, ('files', 'options'))}")
    for name, value in parts.items():
        texts = isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
        if not texts:
            raise UserError(f"rows[{label!r}]: {name}: wanted a list of texts, got {value!r:.60}")
    return list(parts.get("files", [])), list(parts.get("options", []))
