"""The text of a YAML config: a mapping in UTF-8, in which no key is repeated."""

from pathlib import Path
from typing import Any

import yaml
from kd_core.errors import UserError

from kd_det.settings.anchors_text import without_expressions


def read_mapping(file: Path) -> dict[Any, Any]:
    """Return the keys and values of a file; empty where YAML's own error is reported by the merge.

    Raises:
        UserError: If it is not a text, not a mapping, or a key is repeated in a node: YAML's
            readers take the last one in silence.
    """
    try:
        node, found = _loaded(without_expressions(file.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not a text in UTF-8; save it as one") from error
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    if not isinstance(node, dict):
        came = "nothing" if node is None else f"a {type(node).__name__}"
        raise UserError(f"{file}: wanted keys with values, such as MODEL: ..., got {came}")
    if found:
        raise UserError(f"{file}, line {found[1]}: key {found[0]} is repeated in its node")
    return node


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, with libyaml


def _loaded(text: str) -> tuple[Any, tuple[str, int] | None]:
    """Return what a text says, and what `_twice` finds in it; the text is parsed once."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        found = _twice(node)  # before the merge keys are written into the nodes
        return (None if node is None else loader.construct_document(node)), found
    finally:
        loader.dispose()


def _twice(node: Any) -> tuple[str, int] | None:
    """Return a key that is repeated in a node, and the line of the second."""
    waiting, known = [node], set[int]()
    while waiting:
        node = waiting.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in known:
            continue  # an alias may lead back to itself
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        seen = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                return name, key.start_mark.line + 1
            seen.add(name)
            waiting.append(value)
    return None
