"""Child processes when something has failed: none may stand still, none may interrupt."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def wake() -> None:
    """Let child processes that stand still go on.

    They take no order to end otherwise, and the program would wait for them for ever.
    """
    for child in multiprocessing.active_children():  # which also takes leave of dead ones
        with suppress(OSError, ValueError):
            if child.pid is not None:
                os.kill(child.pid, signal.SIGCONT)


@contextmanager
def left_alone() -> Iterator[None]:
    """Wake all; inside, torch does not raise, as it does while a dead worker is not taken leave of.

    It does so wherever the program is, whenever any child ends or wakes, also in the middle of
    telling what has failed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
    try:
        wake()
        yield
    finally:
        if in_main and before is not None:
            signal.signal(signal.SIGCHLD, before)
