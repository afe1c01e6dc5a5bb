"""Load, merge, override and save configs: python files in, plain nested dicts out."""

import math
from collections.abc import Collection, Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import Any

from kd_core.config.python_files import read_python
from kd_core.errors import UserError, nearest

_TUNED = "tuned"
_WIDTH = 90


def load_config(
    paths: str | Path | Sequence[str | Path],
    options: Mapping[str, Any] | None = None,
    *,
    known: Collection[str] = (),
) -> dict[str, Any]:
    """Read config files, merge them left to right, then apply dotted overrides.

    Inside one file `_base_` is mmengine's: bases, python files too, are read first and dicts merge
    into them. Modules, functions, classes and names that start with `_` stay in their file.

    A top-level `tuned` holds what suits one pair of networks in every method: overrides of terms by
    name and, under `phases`, of phases by name; they merge where the method has one of that name.

    Args:
        paths: One python file or several; see `merge` for how a later one changes an earlier one.
        options: Values by dotted path, see `parse_options`. Dicts and lists on the way must exist;
            the last key may be new, since a node need not type every argument (`check` looks).
        known: The top-level names that the tool reads. If given, any other is an error; and an
            option may start a node that no file mentions.

    Raises:
        UserError: If a file is missing or fails, or a name or path is unknown.
    """
    config: dict[str, Any] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        config = merge(config, _load_file(Path(path).expanduser(), known))
    config = _tune(config)
    for option, value in (options or {}).items():
        name, *inner = option.split(".")
        if name not in config and name not in known:
            hint = nearest(name, {*config, *known})
            raise UserError(f"option {option}: the config has no {name!r}{hint}")
        start = config if name in config or not inner else {**config, name: {}}
        config = _override(start, [name, *inner], _plain(value, option), option)
    return config


def merge(
    earlier: Mapping[str, Any], later: Mapping[str, Any], *, keep_marks: bool = False
) -> dict[str, Any]:
    """Merge two configs: dicts deeply, everything else of `later` replaces what `earlier` had.

    A dict marked `_delete_=True` replaces too; so does a node whose `type` differs, because the
    arguments of one callable mean nothing to another. Neither input is changed.

    Args:
        earlier: What is there.
        later: What changes it.
        keep_marks: Leave `_delete_` in the result. That is always so under the key `phases`: its
            overrides are merged once more, when they run.
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


def _tune(config: dict[str, Any]) -> dict[str, Any]:
    """Merge `tuned` into the terms and phases that the method has; the rest is for others."""
    tuned = config.pop(_TUNED, {})
    terms, phases = config.get("distiller", {}).get("terms", {}), config.get("phases")
    used = {name: value for name, value in tuned.items() if name in terms}
    config = merge(config, {"distiller": {"terms": used}}) if used else config
    if not tuned or not isinstance(phases, Mapping):
        return config
    own = {name: value for name, value in tuned.get("phases", {}).items() if name in phases}
    phases = merge(config, {"phases": own})["phases"]
    return {**config, "phases": {n: _tune({_TUNED: tuned, **phase}) for n, phase in phases.items()}}


def _load_file(path: Path, known: Collection[str]) -> dict[str, Any]:
    loaded = read_python(path)
    config = {}
    for name, value in loaded.items():
        if name.startswith("_") or isinstance(value, ModuleType) or callable(value):
            continue
        if known and name not in {*known, _TUNED}:
            raise UserError(
                f"{path}: unknown name {name!r}{nearest(name, known)}"
                "; a name for the file's own use starts with '_'"
            )
        config[name] = _plain(value, f"{path}: {name}")
    return config


def _override(value: Any, keys: Sequence[str], new: Any, option: str) -> Any:
    """Return `value` with the entry that `keys` lead to replaced, or merged if both are dicts."""
    if not keys:
        if not isinstance(new, dict):
            return new
        return merge(value if isinstance(value, dict) else {}, new)
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
    if value is None or type(value) in (str, int, float, bool):
        return value
    advice = "write its import path as a string" if callable(value) else "write a literal"
    raise UserError(f"{where}: {value!r} is not a plain value; {advice}")


def _source(value: Any, margin: str = "") -> str:
    """Write a plain value as python source, on several lines where it does not fit on one."""
    inner = margin + "    "
    if isinstance(value, dict):
        named = all(isinstance(k, str) and k.isidentifier() and not iskeyword(k) for k in value)
        brackets = ("dict(", ")") if named else ("{", "}")
        entries = [
            (f"{key}=" if named else f"{key!r}: ") + _source(entry, inner)
            for key, entry in value.items()
        ]
    elif isinstance(value, list | tuple):
        brackets = ("[", "]") if isinstance(value, list) else ("(", ")")
        entries = [_source(entry, inner) for entry in value]
    elif isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    else:
        return repr(value)
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    flat = brackets[0] + ", ".join(entries) + comma + brackets[1]
    if len(margin + flat) <= _WIDTH and "\n" not in flat:
        return flat
    return f"{brackets[0]}\n" + "".join(f"{inner}{e},\n" for e in entries) + margin + brackets[1]
