"""Merge into configs, with errors of one line."""

import re
from typing import Any

import yaml
from detectron2.config import CfgNode
from kd_core.errors import UserError, nearest


class UnknownKeyError(UserError):
    """A file or an option has a key that the config does not have."""

    key = ""


def merge(cfg: CfgNode, where: str, merge: Any) -> None:
    """Merge into a config; an error says in one line what does not fit."""
    try:
        merge()
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not plain YAML ({' '.join(str(error).split())})") from error
    except (AttributeError, TypeError, RecursionError) as error:  # of lists and texts as nodes
        raise UserError(f"{where}: not a config of Detectron2 ({error})") from error
    except OSError as error:
        place = error.filename or where
        raise UserError(f"{where}: cannot read {place} ({error.strerror or error})") from error
    except (KeyError, AssertionError, ValueError) as error:
        text = str(error.args[0] if error.args else error)
        match = re.fullmatch(r"Non-existent (?:config )?key: (\S+)", text)
        if match:
            hint = _nearest_key(cfg, match[1])
            if "did you mean" not in hint:
                hint = f"; if a module of yours adds it, name that: --import MODULE{hint}"
            unknown = UnknownKeyError(f"{where}: no key {match[1]}{hint}")
            unknown.key = match[1]
            raise unknown from error
        if match := re.match(r"Type mismatch .* for config key: (\S+)$", text):
            text = _wanted(cfg, match[1]) or text
        raise UserError(f"{where}: {text}") from error


def _wanted(cfg: CfgNode, path: str) -> str:
    """Return what a key takes instead of a text, which a shell makes of brackets; "" if unknown."""
    *above, last = path.split(".")
    node: Any = cfg
    for part in above:
        node = node.get(part) if isinstance(node, dict) else None
    value = node.get(last) if isinstance(node, dict) else None
    if not isinstance(value, tuple | list):
        return ""
    shape = "('NAME',)" if isinstance(value, tuple) else "['NAME']"
    return f'{path} takes a {type(value).__name__}, in quotes for the shell: {path} "{shape}"'


def _nearest_key(cfg: CfgNode, path: str) -> str:
    """Return a hint about the first part of a path that a config lacks."""
    node: Any = cfg
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return nearest(part, node) if isinstance(node, dict) else ""
        node = node[part]
    return ""


def has_key(cfg: CfgNode, path: str) -> bool:
    """Return whether a config has a dotted key."""
    node: Any = cfg
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True
