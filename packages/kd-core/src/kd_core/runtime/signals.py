"""Stop signals that wait for the end of a step."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from kd_core.runtime import distributed


class Interrupted(SystemExit):
    """Training was stopped by a signal and its state saved; exits with 128 + the signal."""

    def __init__(self, signum: int, work_dir: Path) -> None:
        self.work_dir = work_dir
        super().__init__(128 + signum)


class StopSignal:
    """Record SIGINT and SIGTERM inside the `with`, instead of ending in the middle of a step.

    A second signal acts as usual, so a user who insists can stop at once. Not with several
    processes: torchrun forwards a signal that the terminal has sent to them already, and kills
    processes that do not stop in time. Several trainers that take turns may share one such object.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}
        self._entered = 0

    @property
    def received(self) -> bool:
        """Return whether a signal came."""
        return self.signum != 0

    def leave(self, work_dir: Path) -> None:
        """Print how to resume, and stop."""
        if distributed.rank() == 0:
            text = (
                f"stopped; saved to {work_dir}. The same command with --resume continues from here."
            )
            print(f"\n{text}", file=sys.stderr)
        raise Interrupted(self.signum or signal.SIGTERM, work_dir)

    def __enter__(self) -> "StopSignal":
        self._entered += 1
        # Only the main thread can set handlers; elsewhere the caller handles signals.
        if self._entered == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered -= 1
        if not self._entered:
            self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if not distributed.is_distributed():
            self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
