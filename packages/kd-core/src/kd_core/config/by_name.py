"""Values that a file has for one pair or one recipe: `by_pair` and `by_recipe`, chosen by name."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from kd_core.errors import UserError, nearest

KINDS = ("pair", "recipe")
"""Parts of a run that can have a name."""
KEYS = (*KINDS, *(f"by_{kind}" for kind in KINDS))
"""The top-level names of a config that give such a name, or have values for one."""
_MISSPELT = 0.9
"""How alike two names of pairs are, many of which share a network, before a message names one."""


class _Table(NamedTuple):
    """A file's `by_pair` or `by_recipe`, and the name that was looked up in it."""

    file: str
    kind: str
    entries: Mapping[str, Any]
    name: str | None


@dataclass
class ByName:
    """Chooses, from each file that is read, the values for the pair and the recipe of this run.

    Args:
        known: The top-level names that a file may have; empty allows any.
        settled: By kind, names that override those in files; None is for no name.
    """

    known: Collection[str] = ()
    settled: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, name in self.settled.items():
            _check_name(name, f"option {kind}")
        self._names: dict[str, str | None] = {**dict.fromkeys(KINDS), **self.settled}
        self._tables: list[_Table] = []

    def handles(self, key: str) -> bool:
        """Return whether a top-level name is one of `KEYS`, and allowed."""
        return key in KEYS and (not self.known or key in self.known)

    def choose(self, file: str, given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the values for this run among what one file gives under `KEYS`.

        Args:
            file: Its name, for messages.
            given: Its values under those of `KEYS` that `handles` allows.

        Raises:
            UserError: If a name is not one, or a table is not a dict of configs by name.
        """
        for kind in KINDS:
            if kind in given:
                _check_name(given[kind], kind)
                if kind not in self.settled:
                    self._names[kind] = given[kind]
        for kind in KINDS:
            if (key := f"by_{kind}") in given:
                table = _Table(file, kind, given[key], self._names[kind])
                _check_table(table, [name for name in self.known if name not in KEYS])
                self._tables.append(table)
                yield table.entries.get(table.name or "", {})

    def second_reading(self) -> "ByName | None":
        """Return a new chooser if a table was read before the name that it depends on."""
        late = any(table.name != self._names[table.kind] for table in self._tables)
        return ByName(self.known, self._names) if late else None

    def check_used(self, kind: str) -> None:
        """Reject the name of this run's pair or recipe if no file has values for it.

        Raises:
            UserError: If no file has values for it.
        """
        name, key = self._names[kind], f"by_{kind}"
        offered = {known for table in self._tables if table.kind == kind for known in table.entries}
        if name is not None and name not in offered:
            hint = nearest(name, offered)
            raise UserError(f"option {kind}: no file has values for {name!r} in `{key}`{hint}")

    @property
    def has_tables(self) -> bool:
        """Whether a file has values by name."""
        return bool(self._tables)

    def notes(self, config: Mapping[str, Any]) -> Iterator[str]:
        """Yield a line on the values by name that hold in the final config.

        Values that a later file or an option replaced are left out. Another line names the files
        that have values for other names only.
        """
        for kind, name in self._names.items():
            tables = [table for table in self._tables if table.kind == kind]
            if name is None or not tables:
                continue
            given = [leaf for table in tables for leaf in _leaves(table.entries.get(name, {}))]
            held = {path: value for path, value in given if _at(config, path) == value}
            if held:
                texts = [f"{'.'.join(map(str, path))}={value}" for path, value in held.items()]
                yield f"values for the {kind} {name}: {', '.join(texts)}"
            missed = [table.file for table in tables if name not in table.entries]
            if missed:
                files = ", ".join(dict.fromkeys(missed))
                hint = "" if len(missed) < len(tables) else _nearest_hint(name, tables)
                yield f"no values for the {kind} {name} in {files}: its defaults hold{hint}"


def _nearest_hint(name: str, tables: Sequence[_Table]) -> str:
    offered = [known for table in tables for known in table.entries]
    alike = get_close_matches(name, offered, n=1, cutoff=_MISSPELT)
    return f"; nearest name there: {alike[0]!r}" if alike else ""


def _check_name(name: Any, where: str) -> None:
    if name is not None and not (isinstance(name, str) and name):
        raise UserError(f"{where}: wanted a name such as 'resnet56_resnet20', got {name!r}")


def _check_table(table: _Table, allowed: Collection[str]) -> None:
    key = f"by_{table.kind}"
    if not isinstance(table.entries, Mapping):
        raise UserError(f"{key}: wanted a dict of configs by {table.kind}, got {table.entries!r}")
    for name, entry in table.entries.items():
        if not (isinstance(name, str) and isinstance(entry, Mapping)):
            wanted = f"the name of a {table.kind} and a config, a dict"
            raise UserError(f"{key}: wanted {wanted}, got {name!r} and {entry!r}")
        for inner in entry:
            if inner in KEYS or (allowed and inner not in allowed):
                hint = nearest(str(inner), allowed)
                raise UserError(f"{key}.{name}: unknown name {inner!r}{hint}")


def _leaves(values: Mapping[str, Any], place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*place, key))
        elif key != "_delete_":
            yield (*place, key), value


def _at(config: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config
