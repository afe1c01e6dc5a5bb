"""Load, merge, override and save configs: python files in, plain nested dicts out."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import Any

from kd_core.config.by_name import KEYS, KINDS, ByName
from kd_core.config.folder import our_config
from kd_core.config.python_files import read_python
from kd_core.errors import UserError, nearest

_WIDTH = 90
_LONGEST = 4096
"""Bits of a number that can be shown in a message; see `sys.set_int_max_str_digits`."""


def load_config(
    paths: str | Path | Sequence[str | Path | Mapping[str, Any]],
    options: Mapping[str, Any] | None = None,
    *,
    known: Collection[str] = (),
    note: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Read config files, merge them left to right, then apply dotted overrides.

    Inside one file `_base_` is mmengine's: bases, python files too, are read first and dicts merge
    into them. Modules, functions, classes and names that start with `_` stay in their file.

    A file that names a pair, `pair = NAME`, chooses the values that other files have for it: under
    `by_pair`, by name, a config that is merged over the file's own values, and so under those of
    its children, of later files and of options. `recipe` and `by_recipe` are the same of a recipe.
    The order of the files does not matter for that. These keys are not in what is returned.

    Args:
        paths: One python file or several, or what would stand in one; see `merge` for how a later
            one changes an earlier one.
        options: Values by dotted path. Dicts and lists on the way must exist; the last key may be
            new, since a node need not list every argument (`kd_core.config.node.parse` finds
            unknown ones).
        known: The top-level names that the tool reads. If given, any other is an error, and an
            option may add a node that is in no file.
        note: Takes a line on each table of values by name: those that hold, or that it has none.

    Raises:
        UserError: If a file is missing or fails, or a name or path is unknown.
    """
    files = [paths] if isinstance(paths, str | Path) else paths
    rest = dict(options or {})
    named = {kind: rest.pop(kind) for kind in KINDS if kind in rest and kind in (known or KINDS)}
    by_name = ByName(known, named)
    config = _merge_files(files, by_name)
    if again := by_name.second_reading():
        by_name, config = again, _merge_files(files, again)
    for kind in named:
        by_name.check_used(kind)
    config = override(config, rest, known=known)
    for line in by_name.notes(config) if by_name.has_tables else ():
        note(line)
    return config


def merge(
    earlier: Mapping[str, Any], later: Mapping[str, Any], *, keep_marks: bool = False
) -> dict[str, Any]:
    """Merge two configs: dicts are merged deeply, all other values of `later` replace the earlier.

    A dict marked `_delete_=True` replaces too; so does a node whose `type` differs, because its
    arguments are those of another callable. Neither input is changed.

    Args:
        earlier: The config to change.
        later: The changes.
        keep_marks: Leave `_delete_` in the result. That is always so under the key `phases`: its
            overrides are merged once more when they run.
    """
    other_type = "type" in earlier and later.get("type", earlier["type"]) != earlier["type"]
    merged = {} if other_type or later.get("_delete_") else dict(earlier)
    for key, value in later.items():
        if isinstance(value, Mapping):
            before = merged.get(key)
            start = before if isinstance(before, Mapping) else {}
            merged[key] = merge(start, value, keep_marks=keep_marks or key == "phases")
        elif key != "_delete_" or keep_marks:
            merged[key] = value
    return merged


def save_config(config: Mapping[str, Any], path: str | Path) -> None:
    """Write a config as a python file that `load_config` reads back to an equal dict.

    Raises:
        UserError: If a value is not plain: a dict, list, tuple, string, number, bool or None.
    """
    lines = [f"{key} = {_source(_plain(value, key))}\n" for key, value in config.items()]
    Path(path).write_text("".join(lines), encoding="utf-8")


def _merge_files(
    files: Sequence[str | Path | Mapping[str, Any]], by_name: ByName
) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for file in files:
        if isinstance(file, Mapping):
            values = _chosen_by_name("the command line", dict(file), by_name)
        else:
            path = Path(file).expanduser()
            values = _load_file(path if path.exists() else our_config(path) or path, by_name)
        config = merge(config, values)
    return config


def _chosen_by_name(file: str, values: dict[str, Any], by_name: ByName) -> dict[str, Any]:
    """Return what a file has, with its values for this run's pair and recipe put in."""
    given = {key: _plain(values.pop(key), key) for key in [*values] if by_name.handles(key)}
    for chosen in by_name.choose(file, given):
        values = merge(values, chosen, keep_marks=True)
    return values


def _load_file(path: Path, by_name: ByName) -> dict[str, Any]:
    def edit(file: Path, values: dict[str, Any]) -> dict[str, Any]:
        return _chosen_by_name(file.name, values, by_name)

    config = {}
    for name, value in read_python(path, edit).items():
        if name.startswith("_") or isinstance(value, ModuleType) or callable(value):
            continue
        if by_name.known and name not in by_name.known:
            raise UserError(
                f"{path}: unknown name {name!r}{nearest(name, by_name.known)}"
                "; a name for the file's own use starts with '_'"
            )
        config[name] = _plain(value, f"{path}: {name}")
    return config


def override(
    config: dict[str, Any], options: Mapping[str, Any], *, known: Collection[str] = ()
) -> dict[str, Any]:
    """Return a config with values by dotted path put in; see `load_config`."""
    for option, value in options.items():
        name, *inner = option.split(".")
        if name in KEYS:
            raise UserError(f"option {option}: only files have {name!r}; set the value itself")
        if name not in config and name not in known:
            hint = nearest(name, {*config, *known})
            raise UserError(f"option {option}: the config has no {name!r}{hint}")
        start = config if name in config or not inner else {**config, name: {}}
        config = _override(start, [name, *inner], _plain(value, option), option)
    return config


def _override(value: Any, keys: Sequence[str], new: Any, option: str) -> Any:
    """Return `value` with the entry that `keys` lead to replaced, or merged if both are dicts."""
    if not keys:
        if not isinstance(new, dict):
            return new
        if not isinstance(value, dict):
            return merge({}, new)
        if value and not new:
            raise UserError(
                f"option {option}: {{}} changes nothing here; {{'_delete_': True}} empties it"
            )
        return merge(value, new)
    key, *rest = keys
    if isinstance(value, dict):
        if rest and key not in value:
            raise UserError(f"option {option}: there is no {key!r}{nearest(key, map(str, value))}")
        return {**value, key: _override(value.get(key), rest, new, option)}
    if isinstance(value, list | tuple):
        if not key.isdecimal() or int(key) >= len(value):
            raise UserError(f"option {option}: {key!r} is not an index below {len(value)}")
        items = list(value)
        items[int(key)] = _override(items[int(key)], rest, new, option)
        return type(value)(items)
    raise UserError(f"option {option}: {key!r} cannot be set inside {value!r}")


def _plain(value: Any, where: str) -> Any:
    """Return a copy made of dicts, lists, tuples, strings, numbers, bools and None."""
    if isinstance(value, Mapping):
        return {key: _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(entry, f"{where}.{i}") for i, entry in enumerate(value))
    if type(value) is int and value.bit_length() > _LONGEST:
        raise UserError(f"{where}: wanted a number of at most 64 bits, got one of more digits")
    if value is None or type(value) in (str, int, float, bool):
        return value
    advice = "write its import path as a string" if callable(value) else "write a literal"
    raise UserError(f"{where}: {value!r} is not a plain value; {advice}")


def _source(value: Any, margin: str = "") -> str:
    """Write a plain value as python source, on several lines where it does not fit on one."""
    inner = margin + "    "
    if isinstance(value, dict):
        named = all(isinstance(k, str) and k.isidentifier() and not iskeyword(k) for k in value)
        entries = [
            (f"{key}=" if named else f"{key!r}: ") + _source(entry, inner)
            for key, entry in value.items()
        ]
        return _bracketed(("dict(", ")") if named else ("{", "}"), entries, margin)
    if isinstance(value, list | tuple):
        entries = [_source(entry, inner) for entry in value]
        brackets = ("[", "]") if isinstance(value, list) else ("(", ")")
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return _bracketed(brackets, entries, margin, comma)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _bracketed(
    brackets: tuple[str, str], entries: Sequence[str], margin: str, comma: str = ""
) -> str:
    """Write entries between brackets, on one line if they fit; `comma` ends that line's list."""
    opening, closing = brackets
    flat = opening + ", ".join(entries) + comma + closing
    if len(margin + flat) <= _WIDTH and "\n" not in flat:
        return flat
    return f"{opening}\n" + "".join(f"{margin}    {e},\n" for e in entries) + margin + closing
