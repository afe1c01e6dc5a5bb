"""Read pickles of NumPy arrays and plain values without running code in them."""

import pickle
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from kd_core.errors import UserError


def _latin1(text: str, encoding: str) -> bytes:
    """Replace `codecs.encode`, with which protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding}")
    return text.encode(encoding)


def _no_bytes() -> bytes:
    """Replace `bytes`, with which protocol 2 writes an empty array; ignore the count."""
    return b""


_HARMLESS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
for _package in ("numpy.core", "numpy._core"):  # renamed by NumPy 2
    _HARMLESS[f"{_package}.multiarray", "_reconstruct"] = np.empty(0).__reduce__()[0]
    _HARMLESS[f"{_package}.multiarray", "scalar"] = np.float64(0).__reduce__()[0]
    _HARMLESS[f"{_package}.numeric", "_frombuffer"] = np.empty(0).__reduce_ex__(5)[0]


class _Unpickler(pickle.Unpickler):
    """Loads only NumPy arrays and plain containers, so no other code can run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise UserError(
                f"holds a {module}.{name}, which cannot be read safely: loading it may run code of "
                f"the file's author. Only NumPy arrays and plain values are needed; if you "
                f"trust the author, read the file once with pickle and write it again with these"
            )
        return _HARMLESS[module, name]


def unpickle(path: str | Path) -> Any:
    """Read a pickle of NumPy arrays, numbers, texts and plain containers, of any version of Python.

    Raises:
        UserError: If it names anything else, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


@contextmanager
def arrays_only(module: Any) -> Iterator[None]:
    """Let a library's module that has imported `pickle` read pickles with `unpickle`."""
    before, module.pickle = module.pickle, _Arrays
    try:
        yield
    finally:
        module.pickle = before


class _Arrays:
    """Replaces the module `pickle`."""

    @staticmethod
    def load(file: IO[bytes], **_: Any) -> Any:
        """Read an open file."""
        return _read(file, str(getattr(file, "name", "a pickle")))


def _read(file: IO[bytes], name: str) -> Any:
    try:
        return _Unpickler(file, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(
            f"{name}: damaged, or not a pickle ({type(error).__name__}); get it again"
        ) from error
