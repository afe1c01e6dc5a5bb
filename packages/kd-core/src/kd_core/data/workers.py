"""Worker processes that read data: what became of them when they give nothing."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from kd_core.errors import RunError, UserError
from kd_core.ranks import fate

MEMORY = (
    "the system kills when memory is used up: free memory, or set fewer workers (data.workers, "
    "DATALOADER.NUM_WORKERS)"
)
WORKER_TIMEOUT = 300.0  # seconds


def checked_timeout(seconds: float) -> float:
    """Return the seconds, if a data loader can wait for so long.

    Raises:
        UserError: If it cannot.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise UserError(f"worker_timeout is {seconds!r}; wanted seconds, or 0 to wait without end")
    return float(seconds)


class Watched:
    """What a `DataLoader` gives, and whose fault it is when it gives nothing.

    Args:
        loader: Its `timeout` says how long a worker may take for a batch.
        option: Name of the setting of that time, for the message.
    """

    def __init__(self, loader: DataLoader[Any], option: str) -> None:
        self.loader, self.option = loader, option
        self._workers: list[BaseProcess] = []

    def __iter__(self) -> Iterator[Any]:
        others = multiprocessing.active_children()
        try:
            batches = iter(self.loader)
            # Persistent workers stay from one epoch to the next.
            self._workers += [p for p in multiprocessing.active_children() if p not in others]
            yield from batches
        except RuntimeError as error:
            if told := self._told(str(error)):
                raise RunError(told) from error
            raise
        finally:
            # One that stands still takes no order to end; the program would wait for it for ever.
            for worker in self._workers:
                with suppress(OSError, ValueError):
                    os.kill(worker.pid or 0, signal.SIGCONT)

    def _told(self, said: str) -> str:
        """Return what became of the workers, if that is what torch's message is about."""
        if "DataLoader timed out" in said:
            still = [f"data worker {pid} {how}" for pid in self._pids if (how := fate(pid))]
            return (
                f"{', '.join(still) or 'the data workers'} gave no batch within "
                f"{self.loader.timeout:g} s; let it go on, look at the disk, or raise "
                f"{self.option} (seconds; 0 waits without end)"
            )
        if "DataLoader worker" not in said:
            return ""
        ended = [worker for worker in self._workers if worker.exitcode]
        how = [f"{worker.pid} {_ended(worker.exitcode or 0)}" for worker in ended]
        return f"data worker {', '.join(how)}; {MEMORY}" if how else ""

    @property
    def _pids(self) -> list[int]:
        return [worker.pid for worker in self._workers if worker.pid is not None]


def _ended(status: int) -> str:
    """Say how a process ended, from Python's exit code."""
    try:
        return f"was killed ({signal.Signals(-status).name})"
    except ValueError:
        return f"ended with status {status}"
