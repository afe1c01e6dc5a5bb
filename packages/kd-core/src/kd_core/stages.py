"""Stages: what must be trained before the student, done once and named by what it depends on."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.claim import claimed_unless_made
from kd_core.config import merge
from kd_core.console import err
from kd_core.errors import UserError, nearest

_PREFIX = "stage:"

FINISHED = "result.json"
"""The file that a run writes last; with it, all its products are there."""


def key_of(settings: Mapping[str, Any]) -> str:
    """Return a short name that changes with the settings, and with the content of files in them.

    A teacher's weights thus count by what is in the file, wherever it lies.
    """
    text = json.dumps(_with_contents(settings), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def ensure(product: Path, make: Callable[[], Any], title: str) -> Path:
    """Make a product unless its file exists already, and return its path.

    `make` trains with `--resume`, so a stage that was cut off goes on where it stopped. Where
    another run makes the product just now, that is waited for.
    """
    with claimed_unless_made(product, title) as to_make:
        if not to_make:
            err.print(f"{title}: done before, using {product}")
            return product
        err.rule(title, style="dim")
        make()
    if not product.is_file():
        raise UserError(f"{title} ended without its product {product}")
    return product


def run_stages(
    config: Mapping[str, Any],
    folder_of: Callable[[str, dict[str, Any]], Path],
    train: Callable[[dict[str, Any], Path], Any],
) -> dict[str, Any]:
    """Run the stages of a config in order; return the last one's config, for the caller to train.

    `stages` is a dict of overrides by name. Each is merged over the rest of the config and trained
    in a folder of its own; a stage that is done there is skipped. Any text `stage:NAME/FILE` in a
    later stage becomes the path of that file among the products of stage NAME.

    Args:
        config: With or without `stages`; without, it is returned as it is.
        folder_of: Gives the folder of a stage, from its name and settings.
        train: Trains a config in a folder, resuming what is there; writes `result.json` last.
    """
    rest = {name: value for name, value in config.items() if name != "stages"}
    folders: dict[str, Path | None] = {}
    *earlier, last = config.get("stages", {}).items() or [("", {})]
    for name, overrides in earlier:
        settings = replace_products(merge(rest, overrides), folders)
        folder = folders[name] = folder_of(name, settings)
        ensure(folder / FINISHED, partial(train, settings, folder), f"stage {name}")
    return replace_products(merge(rest, last[1]), folders)


def _with_contents(value: Any) -> Any:
    """Replace the names of files inside a nested value by hashes of what is in them."""
    if isinstance(value, Mapping):
        return {key: _with_contents(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_contents(item) for item in value]
    if isinstance(value, str) and os.path.isfile(value):  # False for text that is no path at all
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()
    return value


def replace_products(value: Any, folders: Mapping[str, Path | None]) -> Any:
    """Replace `stage:NAME/FILE` texts inside a nested value by paths.

    Args:
        value: A config or a part of one.
        folders: Those of the earlier stages by name; None where there is none yet, as in a check,
            and then None takes the place of the text too.

    Raises:
        UserError: If a text names no earlier stage.
    """
    if isinstance(value, Mapping):
        return {key: replace_products(item, folders) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(replace_products(item, folders) for item in value)
    if not isinstance(value, str) or not value.startswith(_PREFIX):
        return value
    name, _, file = value.removeprefix(_PREFIX).partition("/")
    if name not in folders:
        raise UserError(f"{value!r}: there is no earlier stage {name!r}{nearest(name, folders)}")
    folder = folders[name]
    return None if folder is None else str(folder / (file or "student.pth"))
