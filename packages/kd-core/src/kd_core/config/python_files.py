"""Run a config file, python code, and its bases; nothing else is read as a config."""

import ast
import codecs
import errno
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import mmengine
import mmengine.config.config
from mmengine.config import Config

from kd_core.config.paths import file_problem
from kd_core.errors import UserError
from kd_core.runtime.system_errors import cannot_write

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Edit = Callable[[Path, dict[str, Any]], dict[str, Any]]
"""Takes a file and the names that it and its bases define, and returns what it counts for."""


def read_python(path: Path, edit: Edit) -> dict[str, Any]:
    """Return the names that a python file and its bases define.

    Args:
        path: The file. Its `_base_`, a name or a list of names, may be computed and may have
            bases, but each must be a python file.
        edit: Changes what each file counts for: a base, before its child is merged into it.

    Raises:
        UserError: If a file is missing, is not python, or fails.
    """
    if problem := file_problem(path):
        raise UserError(problem)
    try:
        # By default an `import` in the file would switch mmengine to its lazy syntax.
        with _python_alone(), _edited(path, edit):
            loaded = Config.fromfile(path, lazy_import=False, import_custom_modules=False)
    except _TextError:
        raise
    except (Exception, SystemExit) as error:  # a file that exits is not to end the tool in silence
        raise UserError(_explain(path, error)) from error
    return dict(loaded.to_dict())


class _TextError(UserError):
    """A file is not a text, or says a thing twice; the message has its place."""


def _check_text(file: Path) -> None:
    """Reject what is not plain UTF-8, and a key that is repeated in a dict: the last would win."""
    content = file.read_bytes()
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _TextError(f"{file}: starts with a byte order mark; save it as UTF-8 without one")
    if b"\0" in content:
        raise _TextError(f"{file}: has null bytes, so it is not a text; save it as UTF-8")
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError, RecursionError):  # reported when the file is run
        return
    for node in nodes:
        keys = [k.value for k in getattr(node, "keys", ()) if isinstance(k, ast.Constant)]
        if isinstance(node, ast.Dict) and len(keys) > len(set(keys)):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise _TextError(f"{file}, line {node.lineno}: {twice!r} is repeated in a dict")


@contextmanager
def _python_alone() -> Iterator[None]:
    """Let mmengine load python files only: it follows tags in YAML files, which can run code."""

    def refuse(file: Any, *_: Any, **__: Any) -> NoReturn:
        raise UserError(
            "a `_base_` is not a python file; write it as *.py, since YAML and JSON are not read "
            "as configs"
        )

    with ExitStack() as stack:
        for place in (mmengine, mmengine.config.config):
            stack.enter_context(_replaced(place, "load", refuse))
        yield


@contextmanager
def _edited(path: Path, edit: Edit) -> Iterator[None]:
    """Let mmengine edit what it reads from each file, in the order in which it reads them."""
    read = Config._file2dict

    def read_and_edit(filename: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        file = Path(filename)
        _check_text(file)
        values, *rest = read(filename, *args, **kwargs)
        try:
            return edit(file, values), *rest
        except UserError as error:
            raise UserError(str(error) if file == path else f"{error} ({file})") from error

    with _replaced(Config, "_file2dict", staticmethod(read_and_edit)):
        yield


@contextmanager
def _replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    original = vars(place)[name]
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, original)


def _explain(path: Path, error: BaseException) -> str:
    """Name the file and line that made loading fail: the config itself or one of its bases."""
    sources: list[Path] = []
    waiting = [path]
    while waiting:
        source = Path(os.path.abspath(waiting.pop()))
        if source in sources:
            continue
        sources.append(source)
        if problem := file_problem(source):
            return f"{problem} (a `_base_` of {path})"
        try:
            waiting += [source.parent / base for base in _bases(source)]
        except SyntaxError as syntax:
            return f"{source}, line {syntax.lineno}: {syntax.msg}"
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename) in sources:
            return f"{frame.filename}, line {frame.lineno}: {text}"
    if isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM:
        place = Path("a temporary file through which configs are read")
        return str(cannot_write(place, error))
    return f"{path}: {text}"


def _bases(source: Path) -> list[str]:
    for node in ast.parse(source.read_bytes()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_base_":
            with suppress(ValueError):  # computed, not written out
                bases = ast.literal_eval(node.value)
                bases = [bases] if isinstance(bases, str) else list(bases)
                return [base for base in bases if "{{" not in base]  # mmengine fills them in
    return []
