"""Processes by name: which one this is, and whether another is still alive."""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path
from typing import NamedTuple

ENDED = ("Z", "X")  # states of a process that has ended and is only not yet collected


class Process(NamedTuple):
    """A process, told apart from all others that ever ran.

    Attributes:
        machine: Hash of the host's name, its boot and its space of process numbers: containers of
            one host may share its name, but not the numbers.
        pid: Number.
        start: When it started, in ticks since the boot; 0 where that cannot be read. Numbers are
            used again, this with them is not.
    """

    machine: str
    pid: int
    start: int

    @property
    def is_dead(self) -> bool | None:
        """Whether the process has ended; None where that cannot be seen from here.

        A stopped process (SIGSTOP) is alive.
        """
        if self.machine != _machine():
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass  # alive, and somebody else's
        state, start = state_and_start(self.pid)
        return state in ENDED or (start != self.start and 0 not in (start, self.start))


def this_process() -> Process:
    """Return the process that calls."""
    return Process(_machine(), os.getpid(), state_and_start(os.getpid())[1])


@cache
def _machine() -> str:
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass  # not Linux: the name must do
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def state_and_start(pid: int) -> tuple[str, int]:
    """Return state and start of a process, ("", 0) where they cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return fields[0], int(fields[19])
