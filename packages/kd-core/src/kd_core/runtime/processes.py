"""Identify processes: which one this is, and whether another is still alive."""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path
from typing import NamedTuple

ENDED = ("Z", "X")  # states of a process that has ended but is not joined yet


class Process(NamedTuple):
    """A process, identified among all that ever ran.

    Attributes:
        machine: Hash of the host's name, its boot and its process namespace: containers of one
            host may share its name, but not the namespace.
        pid: Number.
        start: When it started, in ticks since the boot; 0 where that cannot be read. A number can
            be reused, but not with the same start.
    """

    machine: str
    pid: int
    start: int

    @property
    def is_dead(self) -> bool | None:
        """Whether the process has ended; None where that is unknown.

        A stopped process (SIGSTOP) is alive.
        """
        if self.machine != _machine():
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass  # alive, of another user
        state, start = state_and_start(self.pid)
        return state in ENDED or (start != self.start and 0 not in (start, self.start))


def this_process() -> Process:
    """Return the calling process."""
    return Process(_machine(), os.getpid(), state_and_start(os.getpid())[1])


@cache
def _machine() -> str:
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass  # not Linux: only the host's name
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def state_and_start(pid: int) -> tuple[str, int]:
    """Return state and start of a process, ("", 0) where they cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0
    fields = text.rpartition(")")[2].split()  # the name before it may contain anything
    return fields[0], int(fields[19])
