"""Checksums inside files, so that one rename moves both."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from kd_core.errors import UserError
from kd_core.files.fingerprint import hash_of

KEY = "sha256"
"""The last entry of a JSON object, or of a safetensors file's metadata."""

_MARK = b"kd-sha256:"
_SEAL = len(_MARK) + 64  # a mark and a hash, as the comment of a zip archive
_CHUNK = 1 << 20


class DamagedError(UserError):
    """A file differs from what was written; the message says how."""


def sealed_json(value: Mapping[str, Any]) -> str:
    """Return an object as indented JSON whose last entry is a hash of all others.

    Raises:
        UserError: If an entry has the name of the hash.
    """
    if KEY in value:
        raise UserError(f"an entry is called {KEY!r}, the name of the file's checksum; rename it")
    return json.dumps({**value, KEY: _hash_of(value)}, indent=2) + "\n"


def opened_json(text: str, *, unsealed: bool = False) -> dict[str, Any]:
    """Return the object in a text of `sealed_json`, without its hash.

    Args:
        text: The file's contents.
        unsealed: Whether to accept an object without a hash.

    Raises:
        DamagedError: If it is not a JSON object, has no hash, or the hash does not match.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"not JSON: {error}" if text.strip() else "it is empty") from error
    if not isinstance(value, dict):
        raise DamagedError(f"wanted a JSON object, got {text.strip()!r:.40}")
    found = value.pop(KEY, None)
    if found is None and not (unsealed and not any(map(_is_hash, value.values()))):
        raise DamagedError(f"it has no checksum, an entry {KEY!r}")
    if found is not None and found != _hash_of(value):
        raise DamagedError("its checksum does not match")
    return value


def _hash_of(value: Any) -> str:
    # The hash is of the values as read back: tuples become lists, and keys texts.
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _is_hash(value: Any) -> bool:
    """Return whether a value looks like a hash; then the name of its entry was damaged."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


class HashedFile:
    """A new file for `torch.save`, which gets a hash of all its bytes as the archive's comment.

    Zip archives end in a comment, which every reader ignores. An error of the disk is kept until
    `seal` raises it, since torch would hide it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes."""
        view = memoryview(data)
        try:
            if self._error is None:
                self._digest.update(view)
                self._file.write(view)
        except OSError as error:
            self._error = error
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: `close` does."""

    def seal(self) -> None:
        """Add the checksum.

        Raises:
            OSError: If this write or an earlier one failed.
        """
        if self._error:
            raise self._error
        self._file.seek(-2, os.SEEK_END)  # the length of the comment, 0 until now
        self._file.write(_SEAL.to_bytes(2, "little"))
        self._file.write(_MARK + self._digest.hexdigest().encode())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # an error of the rest of the buffer; `seal` has raised
            self._file.close()


def is_sealed(file: BinaryIO) -> bool:
    """Return whether a file has the checksum of `HashedFile`; reads the whole file to check it.

    Raises:
        DamagedError: If it has one that does not match its contents.
    """
    size = file.seek(0, os.SEEK_END) - _SEAL
    if size < 0:
        return False
    file.seek(size)
    mark, found = file.read(len(_MARK)), file.read()
    if mark != _MARK:
        return False
    file.seek(0)
    digest = hashlib.sha256()
    for begin in range(0, size - 2, _CHUNK):
        digest.update(file.read(min(_CHUNK, size - 2 - begin)))
    length = file.read(2)
    digest.update(bytes(2))
    if found != digest.hexdigest().encode() or length != _SEAL.to_bytes(2, "little"):
        raise DamagedError("its checksum does not match")
    return True


def hash_of_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return a hash of names, types, shapes and values, and of all metadata except the hash."""
    texts = sorted((name, text) for name, text in metadata.items() if name != KEY)
    named = [part for name in sorted(tensors) for part in (name, tensors[name])]
    return hash_of(json.dumps(texts), *named)
