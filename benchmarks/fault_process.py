"""Commands of the tools in forked processes: no seconds of imports, and output that is kept."""

import atexit
import importlib
import os
import resource
import select
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Threads do not outlive a fork; and trials share the cores. Set before torch is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

TOOLS = {
    "cls_train": "kd_cls.train",
    "cls_compare": "kd_cls.compare",
    "cls_predict": "kd_cls.predict",
    "cls_export": "kd_cls.export",
    "cls_analyse": "kd_cls.analyse",
    "reid_train": "kd_reid.train",
    "det_train": "kd_det.train",
}
IMPORTED_LATE = (
    "torch.utils.tensorboard",
    "kd_core.experiment.tables.comparison",
    "kd_cls.demo",
    "kd_cls.prediction",
    "kd_cls.deployment",
    "kd_cls.analysis.analyses",
    "kd_reid.demo",
    "kd_det.runner",
    "fault_state",
)
"""What tools import after they have read their arguments."""

LONGEST = 300.0
"""Seconds after which a command hangs."""


@dataclass(frozen=True)
class Command:
    """A command line of a tool.

    Args:
        tool: Name of the tool's file, see `TOOLS`.
        arguments: What comes after it.
    """

    tool: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join([f"tools/{self.tool}.py", *self.arguments])

    def __call__(self) -> int:
        """Run the tool in this process; return the exit status."""
        sys.argv = [f"tools/{self.tool}.py", *self.arguments]
        return importlib.import_module(TOOLS[self.tool]).main(list(self.arguments)) or 0


@dataclass(frozen=True)
class Ended:
    """What a process left: its status is negative where a signal ended it."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def error(self) -> str:
        """The line of the error, if all is said in one: else ""."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        said = len(lines) == 1 and "Traceback" not in self.err + self.out
        return lines[0] if said and self.status in (1, 2) else ""

    @property
    def said(self) -> str:
        """The last line of what was said, with the status."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return f"status {self.status}: {lines[-1] if lines else 'nothing said'}"[:400]


def preload() -> None:
    """Import what the tools import, also late, so that forked processes have it."""
    for name in (*TOOLS.values(), *IMPORTED_LATE):
        importlib.import_module(name)


class Child:
    """A process, the first of a group of its own.

    Args:
        function: What it runs; returns the exit status.
        folder: Its working folder, which also gets its caches.
        largest_file: Bytes after which a file cannot grow, as on a full disk.
    """

    def __init__(
        self, function: Callable[[], int], folder: Path, *, largest_file: int | None = None
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._began = time.monotonic()
        self._ended: Ended | None = None
        ends = [os.pipe() for _ in range(2)]  # pipes, since a full disk does not stop them
        self.pid = os.fork()
        if not self.pid:
            _be_the_child(function, folder, [write for _, write in ends], largest_file)
        for _, write in ends:
            os.close(write)
        self._open = [read for read, _ in ends]
        self._texts = {read: b"" for read in self._open}
        with suppress(OSError):  # it has done so itself, or ended already
            os.setpgid(self.pid, self.pid)  # here too: it may be killed before its first step

    @property
    def is_running(self) -> bool:
        """Whether its end was not seen yet."""
        return self._ended is None

    def wait(self, seconds: float = LONGEST) -> Ended | None:
        """Wait until it has ended; return None if it has not within so many seconds."""
        deadline = time.monotonic() + seconds
        while self._open and self._ended is None:
            left = deadline - time.monotonic()
            ready = select.select(self._open, [], [], max(left, 0))[0]
            if not ready:
                return None
            for end in ready:
                self._read(end)
        if self._ended is None:
            _, status = os.waitpid(self.pid, 0)
            took = time.monotonic() - self._began
            out, err = (text.decode(errors="replace") for text in self._texts.values())
            self._ended = Ended(os.waitstatus_to_exitcode(status), out, err, took)
        return self._ended

    def kill(self) -> Ended:
        """Kill the group, its workers with it, if need be; return how it ended."""
        if self._ended is None:
            os.killpg(self.pid, signal.SIGKILL)
        ended = self.wait()
        assert ended is not None, f"process {self.pid} outlived SIGKILL"
        return ended

    def _read(self, end: int) -> None:
        text = os.read(end, 1 << 16)
        self._texts[end] += text
        if not text:
            os.close(end)
            self._open.remove(end)


def run(function: Callable[[], int], folder: Path, *, largest_file: int | None = None) -> Ended:
    """Run a function in a process of its own; one that hangs is killed, and has status -9."""
    child = Child(function, folder, largest_file=largest_file)
    try:
        return child.wait() or child.kill()
    except KeyboardInterrupt:
        child.kill()
        raise


def _be_the_child(
    function: Callable[[], int], folder: Path, ends: list[int], largest_file: int | None
) -> None:
    """Become a process as the shell would start it, call the function, and end."""
    status = 1
    try:
        os.setpgid(0, 0)
        for number, end in enumerate(ends, start=1):
            os.dup2(end, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.closerange(3, 256)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        for number, action in {
            signal.SIGINT: signal.default_int_handler,
            signal.SIGTERM: signal.SIG_DFL,
        }.items():
            signal.signal(number, action)
        atexit._clear()  # what belongs to the parent
        os.chdir(folder)
        os.environ["KD_CACHE"] = str(folder.resolve() / "cache")
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        status = function()
        atexit._run_exitfuncs()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
