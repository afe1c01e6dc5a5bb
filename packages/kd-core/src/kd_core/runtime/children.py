"""Child processes after a failure: none may stay stopped, none may interrupt."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def wake() -> None:
    """Continue child processes that are stopped (SIGSTOP).

    Otherwise they do not react to SIGTERM, and the program would wait for them forever.
    """
    for child in multiprocessing.active_children():  # this also joins dead ones
        with suppress(OSError, ValueError):
            if child.pid is not None:
                os.kill(child.pid, signal.SIGCONT)


@contextmanager
def left_alone() -> Iterator[None]:
    """Wake all children; inside, torch does not raise because of a dead worker.

    Torch raises at any line of the program, whenever a child ends or wakes: also while the
    message about the failure is printed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
    try:
        wake()
        yield
    finally:
        if in_main and before is not None:
            signal.signal(signal.SIGCHLD, before)
