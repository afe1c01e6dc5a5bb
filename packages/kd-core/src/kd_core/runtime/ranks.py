"""Failure of one process of several: which one it was; only one of them reports it."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any
from uuid import uuid4

import torch.distributed as dist

from kd_core.errors import ReportedElsewhereError, RunError, UserError
from kd_core.runtime.failures import RESUME, bug, explain
from kd_core.runtime.processes import ENDED, state_and_start

TIMEOUT = "KD_RANK_TIMEOUT"
_SECONDS = 600
_STORE_SECONDS = 5
_DYING_SECONDS = 2
_LOST = re.compile(
    r"gloo|NCCL|Connection closed by peer|Connection reset by peer|Broken pipe|Timed out waiting"
    r"|remote process exited|Socket|store",
    re.IGNORECASE,
)


class Terminated(SystemExit):
    """SIGTERM came outside training: most often from torchrun, because a rank has failed."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


def timeout() -> timedelta:
    """Return how long processes wait for one another, from `KD_RANK_TIMEOUT` in seconds.

    Raises:
        UserError: If the value is not a number above 0.
    """
    given = os.environ.get(TIMEOUT, str(_SECONDS))
    try:
        seconds = float(given)
        if not 0 < seconds < 10**9:
            raise ValueError
    except ValueError as error:
        raise UserError(f"{TIMEOUT} is {given!r}; wanted seconds, a number above 0") from error
    return timedelta(seconds=seconds)


@contextmanager
def one_reports() -> Iterator[None]:
    """Let only the first process of a group that fails inside report why; the others are silent.

    Raises:
        RunError: If another process was lost; names that process.
        ReportedElsewhereError: If another process has reported already.
    """
    store = _Store()
    before = after = _on_sigterm(_terminate)
    try:
        yield
    except (Exception, Terminated) as error:
        # Until the end of the process: the launcher's SIGTERM must not cut off the message. The
        # launcher kills a process that does not end.
        after = signal.SIG_IGN if before is not None else None
        _on_sigterm(after)
        first = store.is_first()
        store.keep()
        if not first:
            raise ReportedElsewhereError(error) from error
        lost = _lost(error, store)
        if lost is None:
            raise
        raise lost from error
    finally:
        _on_sigterm(after)


class _Store:
    """What the processes know of one another; the launcher keeps it and outlives them."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # A launcher's store may outlive these processes, and its count of restarts differ by node.
        name = [uuid4().hex]
        dist.broadcast_object_list(name)
        self._prefix = f"kd/{name[0]}"
        self._store: Any = None
        if "MASTER_ADDR" in os.environ:  # missing where the processes met through a file
            with suppress(RuntimeError, ValueError):
                address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
                wait = timedelta(seconds=_STORE_SECONDS)
                self._store = dist.TCPStore(address, port, is_master=False, timeout=wait)
                text = f"{socket.gethostname()} {os.getpid()}"
                self._store.set(f"{self._prefix}/{self.rank}", text)

    def is_first(self) -> bool:
        """Return whether no other process has asked this before."""
        try:
            return self._store is None or self._store.add(f"{self._prefix}/failed", 1) == 1
        except RuntimeError:  # the process with the store is gone
            return True

    def keep(self) -> None:
        """Wait a little until all have asked who reports, if this process has the store of them.

        torchrun's agent has it otherwise, and outlives them.
        """
        ours = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
        deadline = time.monotonic() + _DYING_SECONDS
        with suppress(RuntimeError):
            while self._store is not None and ours and time.monotonic() < deadline:
                if self._store.add(f"{self._prefix}/failed", 0) >= self.size:
                    return
                time.sleep(0.02)

    def gone(self) -> list[str]:
        """Describe which other processes on this machine died or are stopped."""
        found = []
        for rank in range(self.size):
            with suppress(RuntimeError, ValueError, AttributeError):
                key = f"{self._prefix}/{rank}"
                if rank == self.rank or not self._store.check([key]):
                    continue
                host, process = self._store.get(key).decode().split()
                if host == socket.gethostname() and (how := fate(int(process))):
                    found.append(f"rank {rank} of {self.size} (process {process}) {how}")
        return found


def fate(process: int) -> str:
    """Return how a process of this machine ended; "" if it runs or that is unknown."""
    if not state_and_start(os.getpid())[0]:
        return ""  # cannot be read on this system
    state, _ = state_and_start(process)
    if state in ("", *ENDED):
        return "died"
    return "is stopped (SIGSTOP)" if state == "T" else ""


def _lost(error: BaseException, store: _Store) -> UserError | None:
    """Explain the error that a process gets when another is gone."""
    group = isinstance(error, dist.DistError | Terminated) or (
        isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
    )
    if not group or (isinstance(error, Exception) and explain(error) is not None):
        return None
    late = "Timed out" in str(error) or "timeout" in str(error).lower()
    gone = _wait_for_gone(store, 0 if late or isinstance(error, Terminated) else _DYING_SECONDS)
    if not gone and isinstance(error, Terminated):
        return None
    waited = f" did not answer within {timeout().total_seconds():g} s ({TIMEOUT})" if late else ""
    who = ", ".join(gone) or f"another rank than {store.rank}{waited or ' died or left'}"
    if not gone and not late and not re.search("peer|remote|Broken pipe", str(error)):
        return bug(error)
    return RunError(f"{who}, so training stopped; {RESUME}")


def _wait_for_gone(store: _Store, seconds: float) -> list[str]:
    """Return who died or is stopped: a dying process closes its connections before it is dead."""
    deadline = time.monotonic() + seconds
    while not (gone := store.gone()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return gone


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _on_sigterm(handler: Any) -> Any:
    """Set the handler of SIGTERM, where it can be; return the one before."""
    if threading.current_thread() is not threading.main_thread() or handler is None:
        return None
    return signal.signal(signal.SIGTERM, handler)
