"""The text of a config file, looked at before it is run."""

import ast
import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from kd_core.errors import UserError

_BASE = "_base_"


class TextError(UserError):
    """A file is not a text, or would be read otherwise than it looks; the message has its place."""


def check_text(file: Path) -> None:
    """Reject a text of which a part would be left out in silence, or that is not UTF-8.

    Raises:
        TextError: If it is such a text. What Python refuses is reported when the file is run.
    """
    content = file.read_bytes()
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise TextError(f"{file}: starts with a byte order mark; save it as UTF-8 without one")
    if b"\0" in content:
        raise TextError(f"{file}: has null bytes, so it is not a text; save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TextError(f"{file}, line {line}: is not UTF-8; save the file as UTF-8") from error
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # reported when the file is run
        return
    nodes = list(ast.walk(tree))
    for line, problem in (*_twice(nodes), *_bases(tree, nodes), *_relative(nodes)):
        raise TextError(f"{file}, line {line}: {problem}")


def _twice(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Find a key that is repeated in a dict: the last would win."""
    for node in nodes:
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if len(keys) > len(set(keys)):
                twice = next(key for key in keys if keys.count(key) > 1)
                yield node.lineno, f"{twice!r} is repeated in a dict"


def _bases(tree: ast.Module, nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Find a `_base_` that mmengine would not see: it takes the first assignment alone."""
    seen = next((line for line in tree.body if _names_bases(line)), None)
    for node in nodes:
        if not isinstance(node, ast.Name) or node.id != _BASE or node is _target(seen):
            continue
        if isinstance(node.ctx, ast.Store):
            yield (
                node.lineno,
                f"`{_BASE}` is read once, from `{_BASE} = [...]` on a line of its own; "
                "write all files there",
            )


def _names_bases(line: ast.stmt) -> bool:
    target = _target(line)
    return isinstance(target, ast.Name) and target.id == _BASE


def _target(line: ast.stmt | None) -> ast.expr | None:
    """Return the only target of an assignment."""
    return line.targets[0] if isinstance(line, ast.Assign) and len(line.targets) == 1 else None


def _relative(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Find an import from the file's own folder, as in mmengine's `with read_base()`."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield (
                node.lineno,
                f"a config is not part of a package; name the file in `{_BASE} = [...]`",
            )
