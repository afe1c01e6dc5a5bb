"""The files of claims; to claim a folder, use the blocks of `kd_core.files.claim`.

A claim is a small file, `.claim-N`. It names machine, process and time, and a thread updates its
modification time. The one with the largest number counts. A dead claim is not replaced; the next
number follows it. A name can be created only once, so only one process takes over a dead claim.
That also holds on network file systems, where kernel locks may not.
"""

import json
import os
import stat
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from socket import gethostname
from uuid import uuid4

from kd_core.errors import UserError
from kd_core.files.leftovers import remove_leftovers, temporary, write_new
from kd_core.runtime.console import err
from kd_core.runtime.processes import Process, this_process
from kd_core.runtime.system_errors import cannot_write

HEARTBEAT = 10.0
"""Seconds between signs of life."""
EXPIRES = 120.0
"""Seconds without a sign of life after which the claim of another machine is void."""

_PREFIX = ".claim-"
_LONGEST = 4096  # bytes of a claim


class Owner:
    """The owner of a claim.

    Args:
        path: The claim.
        text: What is in it.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.process, self.host, self.since = None, "an unknown host", "an unknown time"
        # Only text in the form that we write is used.
        wrong = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
        with suppress(*wrong):
            found = json.loads(text)
            process = Process(str(found["machine"]), int(found["pid"]), int(found["start"]))
            if process.pid > 0 and found["host"].isprintable():
                self.since = datetime.fromisoformat(found["since"]).isoformat(" ", "seconds")
                self.process, self.host = process, found["host"][:100]

    @property
    def is_live(self) -> bool:
        """Whether the claim is valid: its process is alive, or was recently (other machines)."""
        dead = self.process.is_dead if self.process else None
        return _silence(self.path) < EXPIRES if dead is None else not dead

    @property
    def is_here(self) -> bool:
        """Whether it is this process."""
        return self.process == this_process()

    def __str__(self) -> str:
        pid = self.process.pid if self.process else "unknown"
        return f"process {pid} on {self.host}, since {self.since}"


class Claim:
    """A claim of this process; a thread keeps it alive until its release.

    Args:
        path: The file.
        text: What is in it.
        made: The folders that were created for it, the innermost first.
    """

    def __init__(self, path: Path, text: str, made: list[Path]) -> None:
        self.path, self.text, self.made = path, text, made
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name=f"claim of {path.parent}", daemon=True).start()

    def release(self) -> None:
        """Release the folder; remove folders that were created for the claim and stayed empty."""
        self._ended.set()
        with suppress(OSError):
            if _text(self.path) == self.text:
                self.path.unlink()
            for folder in self.made:
                folder.rmdir()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with suppress(OSError):  # a server that does not answer: it may come back
                if self._is_lost() and not self._ended.is_set():
                    err.print(
                        f"error: {self.path.parent} was taken over by another run, because this "
                        "one gave no sign of life for long; it stopped without writing to it"
                    )
                    os._exit(1)  # at once: this run would change the files of another
                os.utime(self.path)

    def _is_lost(self) -> bool:
        numbers = claims_in(self.path.parent)
        if not numbers and self.path.parent.is_dir():  # removed by hand
            self.path.write_text(self.text, encoding="utf-8")
            return False
        return bool(numbers) and (
            max(numbers) != _number(self.path) or _text(self.path) != self.text
        )


def take(folder: Path) -> Claim | Owner:
    """Claim a folder, created if missing, or return the owner of it or of a folder inside it.

    Raises:
        UserError: If the folder cannot be written, or is inside one that is claimed.
    """
    process = this_process()._asdict()
    since = datetime.now().astimezone().isoformat()
    facts = {**process, "host": gethostname(), "since": since, "token": uuid4().hex}
    text, made = json.dumps(facts), list[Path]()
    try:
        while True:
            made += _make(folder)
            newest = max(claims_in(folder), default=0)
            owner = read(folder, newest)
            if owner is not None and owner.is_live:
                return owner
            if _follow(folder, newest, text):
                return _alone(Claim(_path(folder, newest + 1), text, made))
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        refusal = cannot_write(folder, error)
        raise refusal or UserError(f"{str(folder)!r} cannot be a folder ({error})") from error


def claims_in(folder: Path) -> list[int]:
    """Return the numbers of the claims in a folder."""
    return [number for path in folder.glob(f"{_PREFIX}*") if (number := _number(path))]


def read(folder: Path, number: int) -> Owner | None:
    """Return the owner of a claim, None where there is none."""
    path = _path(folder, number)
    text = _text(path)
    return None if text is None else Owner(path, text)


def _follow(folder: Path, newest: int, text: str) -> bool:
    """Make the claim after the newest (a dead one; 0 for none); return whether it is valid.

    Between reading and claiming, others may have taken over and released, so that the numbers
    restarted. So the newest must still exist, dead, and ours must be the only one above it. Then
    no other process can claim: every other name that it could choose exists already.
    """
    path = _path(folder, newest + 1)
    try:
        write_new(path, text)
    except (FileExistsError, FileNotFoundError):
        return False  # another was faster, or removed the empty folder
    before = read(folder, newest)
    numbers = claims_in(folder)
    follows = before is not None and not before.is_live if newest else len(numbers) == 1
    if not follows or max(numbers) != newest + 1:
        if _text(path) == text:
            path.unlink(missing_ok=True)
        return False
    for number in sorted(numbers)[:-1]:
        _path(folder, number).unlink(missing_ok=True)
    return True


def _alone(claim: Claim) -> Claim | Owner:
    """Release a claim if another run owns a folder above or below; else clean up its folder."""
    folder = claim.path.parent
    for path in folder.glob(f"*/**/{_PREFIX}*"):
        if owner := _another_run(path.parent):
            claim.release()
            return owner
    for above in folder.resolve().parents:
        if owner := _another_run(above):
            claim.release()
            raise UserError(
                f"{folder} is in {above}, which is in use by another run: {owner}; name a folder "
                "outside"
            )
    remove_leftovers(folder, inside=True)
    return claim


def _another_run(folder: Path) -> Owner | None:
    """Return the other live run that owns a folder; None also where that cannot be read."""
    with suppress(OSError, UserError):
        owner = read(folder, max(claims_in(folder), default=0))
        if owner is not None and not owner.is_here and owner.is_live:
            return owner
    return None


def _make(folder: Path) -> list[Path]:
    """Create a folder; return those that were created, the innermost first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        if folder.is_symlink():
            raise UserError(f"{folder} is a link to nothing; name another folder")
        missing.append(folder)
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; a run needs a folder")
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
    return missing


def _path(folder: Path, number: int) -> Path:
    return folder / f"{_PREFIX}{number}"


def _number(path: Path) -> int:
    text = path.name.removeprefix(_PREFIX)
    return int(text) if text.isascii() and text.isdigit() and text[0] != "0" else 0


def _text(path: Path) -> str | None:
    """Return the text of a claim, None where there is none."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UserError(f"{path} is not a claim of a run; move it elsewhere")
        with path.open("rb") as file:
            return file.read(_LONGEST).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _silence(path: Path) -> float:
    """Return the seconds since a claim's last sign of life, by the clock of its file system."""
    probe = temporary(path)
    try:
        probe.touch()
        return probe.stat().st_mtime - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0  # released just now: the next check shows it
    finally:
        probe.unlink(missing_ok=True)
