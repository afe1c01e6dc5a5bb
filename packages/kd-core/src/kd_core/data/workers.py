"""Watch worker processes that read data: detect those that return nothing."""

import math
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from typing import Any

from kd_core.errors import RunError, UserError
from kd_core.runtime import children
from kd_core.runtime.failures import FEWER_WORKERS, KILLED, explain
from kd_core.runtime.ranks import fate

WORKER_TIMEOUT = 300.0  # seconds


def checked_timeout(seconds: float) -> float:
    """Return the seconds if a data loader can wait so long.

    Raises:
        UserError: If it cannot.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise UserError(f"worker_timeout is {seconds!r}; wanted seconds, or 0 to wait forever")
    return float(seconds)


def outlive_stop_signals(worker: int) -> None:
    """Let a worker ignore SIGTERM, unless its parent sends it; a `worker_init_fn`.

    SLURM sends it to all processes of a run, as `kill` does to those of a group. The run then
    finishes its step, is saved, and ends its workers itself.

    Args:
        worker: Its number.
    """
    if hasattr(signal, "sigwaitinfo"):  # not on every system
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for, args=(os.getppid(),), daemon=True).start()


def _end_for(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)


class Watched:
    """The batches of a loader with workers; a lost worker ends the wait for it.

    torch's own `timeout` is not enough: fetching what a worker has sent has no limit. So the
    workers are killed at the timeout, and that ends every wait.

    Args:
        loader: A `DataLoader`, or a wrapper of one.
        seconds: How long a batch may take; 0 waits forever.
        option: Name of that setting, for the message.
    """

    def __init__(self, loader: Any, seconds: float, option: str) -> None:
        self.loader, self.seconds, self.option = loader, checked_timeout(seconds), option
        self._workers: list[BaseProcess] = []
        self._late = ""
        self._due = math.inf
        self._clock: threading.Thread | None = None

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """Start the workers now, and yield their batches."""
        others = multiprocessing.active_children()
        with self._watch():
            batches = iter(self.loader)
            # Persistent workers stay from one epoch to the next.
            self._workers += [p for p in multiprocessing.active_children() if p not in others]
        if self._clock is None and self._workers and self.seconds:
            arguments = weakref.ref(self), min(1.0, self.seconds / 10)
            self._clock = threading.Thread(target=_tick, args=arguments, daemon=True)
            self._clock.start()
        held = [batches]
        each = self._each(held)
        # If a trainer is garbage in a cycle, Python would close the queues of its workers before
        # torch ends them: five seconds of waiting for each. So its loader is not part of the cycle.
        weakref.finalize(each, held.clear).atexit = False
        return each

    def _each(self, held: list[Iterator[Any]]) -> Iterator[Any]:
        while True:
            with self._watch():
                try:
                    batch = next(held[0])
                except StopIteration:
                    return
            yield batch

    @contextmanager
    def _watch(self) -> Iterator[None]:
        self._due = time.monotonic() + self.seconds
        try:
            yield
        except BaseException as error:
            with children.left_alone():  # also after Ctrl-C they have to end
                reason = self._late or self._ended(error)
                for worker in self._workers if reason else ():
                    worker.kill()
                    worker.join(5)
            if not reason or not isinstance(error, Exception):
                raise
            raise RunError(reason) from error
        finally:
            self._due = math.inf

    def tick(self) -> None:
        """Stop waiting at the timeout; called in another thread."""
        if time.monotonic() < self._due:
            return
        self._due = math.inf
        pids = [worker.pid for worker in self._workers if worker.pid is not None]
        found = [f"data worker {pid} {how}" for pid in pids if (how := fate(pid))]
        why = f" ({', '.join(found)})" if found else ""
        self._late = (
            f"the data workers gave no batch within {self.seconds:g} s{why}; "
            f"look at the disk, or raise {self.option} (seconds; 0 waits forever)"
        )
        for worker in self._workers:
            with suppress(OSError, ValueError):
                worker.kill()

    def _ended(self, error: BaseException) -> str:
        """Return how workers ended, if torch's message is about that."""
        if "DataLoader worker" not in str(error):
            return ""
        how = [f"{w.pid} {_how_ended(w.exitcode)}" for w in self._workers if w.exitcode]
        if not how:
            return str(explain(error))
        return f"data worker {', '.join(how)}; {KILLED}, or {FEWER_WORKERS}"


def _tick(watched: "weakref.ref[Watched]", pause: float) -> None:
    """Check the time every now and then, as long as the loader is in use."""
    while True:
        time.sleep(pause)
        found = watched()
        if found is None:
            return
        found.tick()
        del found


def _how_ended(status: int) -> str:
    """Return how a process ended, from Python's exit code."""
    try:
        return f"was killed ({signal.Signals(-status).name})"
    except ValueError:
        return f"ended with status {status}"
