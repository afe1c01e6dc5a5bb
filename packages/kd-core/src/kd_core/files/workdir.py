"""Choose the folder of a run, without overwriting another, and the folder of generated data."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from kd_core.errors import UserError
from kd_core.files.claim import claimed, claimed_first, is_claimed
from kd_core.files.leftovers import remove_leftovers
from kd_core.runtime import distributed

_TRACES = ("config.json", "config.py", "last.pth", "result.json", "summary.json")


@contextmanager
def run_folder(
    given: str | None, names: Sequence[str], *, resume: bool, patient: bool = False
) -> Iterator[Path]:
    """Choose the folder of a run, and own it inside the block.

    Without a given folder it is `runs/<names>`, with a number at the end if a run is there
    already; with `resume` the newest of these.

    Args:
        given: The folder; None for one of those.
        names: Of the run.
        resume: Whether a run that is there is continued.
        patient: See `claimed`.

    Raises:
        UserError: If the given folder holds a run and it is not to be resumed, or a live run owns
            the folder.
    """
    if given is None and not resume:
        choice = claimed_first(_numbered(names), has_run)
    else:
        choice = _given_folder(given, names, resume=resume, patient=patient)
    with choice as folder:
        remove_leftovers(folder.parent / "teachers")
        yield folder


def named_folder(text: object, option: str) -> Path:
    """Return the folder that an option names; reject an empty name.

    An empty name most often comes from a shell variable that is not set.

    Raises:
        UserError: If it is empty, or not a text.
    """
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{option} is {text!r}; wanted the name of a folder, . for this one")
    return Path(text)


def has_run(folder: Path) -> bool:
    """Return whether a folder holds a run, or runs of several seeds."""
    return any(next(folder.glob(f"**/{trace}"), None) for trace in _TRACES)


def cache_folder() -> Path:
    """Return where generated data is kept: `$KD_CACHE`, or else `~/.cache/kd`."""
    try:
        return Path(os.environ.get("KD_CACHE") or "~/.cache/kd").expanduser()
    except RuntimeError as error:
        raise UserError(
            "generated data is kept in ~/.cache/kd, but you have no home folder here; name another "
            "folder in the variable KD_CACHE"
        ) from error


@contextmanager
def _given_folder(
    given: str | None, names: Sequence[str], *, resume: bool, patient: bool
) -> Iterator[Path]:
    newest = distributed.on_rank_0(lambda: _newest(names)) if given is None else None
    folder = newest or named_folder(given, "--work-dir")
    with claimed(folder, patient=patient):
        # Only rank 0 checks: it may have written before the others arrive.
        if not resume and distributed.on_rank_0(lambda: has_run(folder)):
            raise UserError(
                f"--work-dir {folder} has a run already; add --resume to continue it, or name "
                "another folder"
            )
        yield folder


def _numbered(names: Sequence[str]) -> Iterator[Path]:
    """Yield the folders for runs of these names, one after the other."""
    stem = "-".join(re.sub(r"\W+", "_", name) for name in names)
    yield Path("runs") / stem
    yield from (Path("runs") / f"{stem}-{number}" for number in count(2))


def _newest(names: Sequence[str]) -> Path:
    """Return the last folder that is in use, or the first of all."""
    newest = next(_numbered(names))
    for folder in _numbered(names):
        if not (has_run(folder) or is_claimed(folder)):
            break
        newest = folder
    return newest
