"""Checksums that a file carries in itself, so that one rename covers both."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from kd_core.errors import UserError

KEY = "sha256"
"""The last entry of a JSON object of ours: the hash of all the others."""


class DamagedError(UserError):
    """A file is not what was written; the message says how that shows."""


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
        unsealed: Whether an object without a hash is taken too.

    Raises:
        DamagedError: If it is not JSON, not an object, has no hash, or not the one of its contents.
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
    # Of what a reader gets: tuples come back as lists, and keys as texts.
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _is_hash(value: Any) -> bool:
    """Return whether a value looks like a hash, whose entry's name was damaged then."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
