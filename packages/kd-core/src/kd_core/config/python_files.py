"""Run a config file, python code, and its bases; nothing else is read as a config."""

import ast
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
from kd_core.config.python_text import TextError, check_text
from kd_core.errors import UserError
from kd_core.runtime.system_errors import cannot_write
from kd_core.runtime.user_code import FAILURES, pass_signals

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
    except TextError:
        raise
    except FAILURES as error:
        pass_signals(error)
        raise UserError(_explain(path, error)) from error
    return dict(loaded.to_dict())


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
    read, bases_of = Config._file2dict, Config._get_base_files
    reading: list[Path] = []

    def read_and_edit(filename: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        file = Path(filename)
        if reading and (problem := file_problem(file)):
            raise TextError(f"{problem} (a `_base_` of {path})")
        if any(os.path.abspath(file) == os.path.abspath(other) for other in reading):
            raise TextError(f"{file}: its `_base_` leads back to it; leave one of them out")
        check_text(file)
        reading.append(file)
        values, *rest = read(filename, *args, **kwargs)
        reading.pop()
        try:
            return edit(file, values), *rest
        except UserError as error:
            raise UserError(str(error) if file == path else f"{error} ({file})") from error

    def require_names(filename: Any) -> list[str]:
        found = bases_of(filename)
        names = [*found[0]] if len(found) == 1 and isinstance(found[0], tuple) else found
        if not all(isinstance(name, str) for name in names):
            raise TextError(
                f"{reading[-1]}: `_base_` is {found!r:.80}; wanted a file's name, or a list of them"
            )
        return names

    with ExitStack() as stack:
        stack.enter_context(_replaced(Config, "_file2dict", staticmethod(read_and_edit)))
        stack.enter_context(_replaced(Config, "_get_base_files", staticmethod(require_names)))
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
        except (RecursionError, MemoryError):  # nested too deeply to be read
            pass
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
                bases = [bases] if isinstance(bases, str) else bases
                return [base for base in bases if "{{" not in base]  # mmengine fills them in
    return []
