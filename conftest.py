"""Settings of all tests, and the comparison with the references' own numbers."""

import functools
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections import defaultdict
from pathlib import Path

import pytest

# One thread a process: the tensors are tiny, and tests of two processes share two cores. Set before
# torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Most of a short process's time goes into imports. Where python may not keep what it compiles, each
# would compile torch again, for many seconds: it is kept beside pytest's own cache instead.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parent / ".pytest_cache/bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

_errors: dict[str, list[float]] = defaultdict(list)
_GOLDEN = "golden"
_forks = None
_MOST_WORKERS = 8  # each imports torch


def pytest_addoption(parser):
    """Add `--golden` and `--slow`."""
    parser.addoption("--slow", action="store_true", help="run what takes minutes too")
    text = "compare every method with its reference's numbers only, and print the worst errors"
    parser.addoption("--golden", action="store_true", help=text)


def pytest_xdist_auto_num_workers(config):
    """Run the whole suite in parallel; a few files or names start sooner in one process."""
    narrowed = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if narrowed or config.getoption("keyword") or config.getoption("usepdb"):
        return 0
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)))


def pytest_runtest_logreport(report):
    """Collect what tests compared, from whichever process ran them."""
    if report.when == "call":
        for name, value in report.user_properties:
            if name == _GOLDEN:
                method, error = value
                _errors[method].append(error)


def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a module in one process: they share what its fixtures train.

    A module marked `spread` shares nothing: its tests run wherever a process is free, after all
    others. xdist's own groups hang on names of tests that new releases of pytest do not let change.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            module = nodeid.partition("::")[0]
            return nodeid if is_spread(module) else module

    return ByModule(config, log)


@functools.cache
def is_spread(module):
    """Return whether a module of tests, named by its path from here, is marked `spread`."""
    text = (Path(__file__).parent / module).read_text(encoding="utf-8")
    return "\npytestmark = pytest.mark.spread\n" in text


def pytest_collection_modifyitems(config, items):
    """Leave out what is not asked for."""
    if not config.getoption("--slow"):
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    if config.getoption("--golden"):
        items[:] = [item for item in items if "golden" in getattr(item, "fixturenames", ())]


def pytest_terminal_summary(terminalreporter, config):
    """Print the worst relative error of every method."""
    if not config.getoption("--golden"):
        return
    terminalreporter.section("relative errors against the references, float64")
    for method, errors in sorted(_errors.items()):
        line = f"{method:<14} {len(errors):>3} numbers   worst {max(errors):.1e}"
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def networks_are_not_traced(request, monkeypatch):
    """Print no multiply-adds, draw no curves: both take longer than many a run of a test.

    `packages/kd-core/tests/test_report.py` counts them, `test_curves.py` draws.
    """
    curves = sys.modules.get("kd_core.experiment.curves")
    if curves and request.path.name != "test_curves.py":
        monkeypatch.setattr(curves, "draw", lambda work_dir, summary: None)
    if request.path.name != "test_report.py":
        trace_nothing(monkeypatch.setattr)


def trace_nothing(setattr=setattr):
    """Let reports say of every network that it cannot be traced."""
    if report := sys.modules.get("kd_core.experiment.report"):
        setattr(report, "flops", lambda network, image: None)


def draw_nothing():
    """Let the curves of this process be an empty file: matplotlib takes longer than most runs."""
    if curves := sys.modules.get("kd_core.experiment.curves"):
        curves.plot_curves = write_nothing


def write_nothing(runs, metric, path, **options):
    """Write an empty picture, as `kd_core.experiment.tables.plots.plot_curves` writes one."""
    with sys.modules["kd_core.files.checkpoint"].atomic_path(path) as temporary:
        temporary.touch()


class Forks:
    """Runs functions in processes of their own, forked off one that has all tests imported.

    That process is itself a fork of this one, made before the first test: imports take seconds, and
    autograd, once used beside a GPU, does not survive a fork.
    """

    def __init__(self):
        self._line, theirs = multiprocessing.Pipe()
        self._server = os.fork()
        if not self._server:
            self._line.close()
            serve(theirs)
        theirs.close()

    def ask(self, *words):
        """Send words to the server and return its answer."""
        self._line.send(words)
        return self._line.recv()

    def start(self, function, *arguments, folder, umask=0o022, **environment):
        """Call a function of a module in a folder; what it returns is the exit status."""
        pid = self.ask("start", function, arguments, str(folder), umask, environment)
        return Forked(self, pid, Path(folder))

    def start_ranks(self, function, *arguments, folder):
        """Start a function in two processes, as torchrun would; return both."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        ranks = [{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"} for rank in "01"]
        return [
            self.start(function, *arguments, folder=folder, **rank, **meeting) for rank in ranks
        ]

    def stop(self):
        """End the server."""
        self._line.close()
        os.waitpid(self._server, 0)


class Forked:
    """A process that was started, and what it says on stderr."""

    def __init__(self, forks, pid, folder):
        self.pid, self.status, self.said_in = pid, None, folder / f"stderr-{pid}"
        self._forks = forks

    def send(self, number):
        """Send a signal."""
        os.kill(self.pid, number)

    def has_ended(self):
        """Return whether it has ended; its status is known then."""
        if self.status is None:
            self.status = self._forks.ask("poll", self.pid)
        return self.status is not None

    def end(self, seconds=300):
        """Wait, and return exit status and stderr."""
        deadline = time.monotonic() + seconds
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()
        return self.status, self.said_in.read_text()

    def kill(self):
        """End it, if it has not ended."""
        if not self.has_ended():
            self.send(signal.SIGKILL)
            while not self.has_ended():
                time.sleep(0.01)


def serve(line):
    """Fork processes off, as words ask for them, until nobody is there to ask."""
    trace_nothing()
    draw_nothing()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.is_available = lambda: False
    try:
        while True:
            what, *words = line.recv()
            if what == "start":
                answer = os.fork() or call(*words)
            else:
                pid, status = os.waitpid(words[0], os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if pid else None
            line.send(answer)
    finally:
        os._exit(0)


def call(function, arguments, folder, umask, environment):
    """Call a function as a process that a shell would start in a folder, and end."""
    status = 1
    try:
        os.chdir(folder)
        os.environ |= environment
        os.umask(umask)
        said = os.open(f"stderr-{os.getpid()}", os.O_WRONLY | os.O_CREAT)
        for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), said, said)):
            os.dup2(file, number)
        os.closerange(3, 256)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        status = function(*arguments) or 0
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """Fork the server off, if a test wants one, while nothing but imports was done.

    What is there now stays, and is not looked through in each collection of garbage.
    """
    global _forks
    gc.freeze()
    wanted = any("forks" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        _forks = Forks()


def pytest_sessionfinish():
    """End the server."""
    if _forks is not None:
        _forks.stop()


@pytest.fixture(scope="session")
def forks():
    """Return what starts functions in processes of their own."""
    return _forks


@pytest.fixture
def golden(request):
    """Return a function that holds a value against the reference's, to 1e-6, and keeps the error.

    The values are named after the test module: those of test_kd.py are KD's.
    """
    method = request.module.__name__.rpartition("test_")[2]

    def compare(value, reference):
        value = float(value)
        error = abs(value - reference) / max(abs(reference), 1e-300)
        request.node.user_properties.append((_GOLDEN, (method, error)))
        assert error <= 1e-6, f"{value!r}, the reference has {reference!r}"

    return compare


@pytest.fixture(autouse=True)
def _no_old_log_handlers():
    """Remove the handlers that Detectron2 adds: they write to the captured output of this test."""
    yield
    if "detectron2" in sys.modules:
        for name in ("detectron2", "fvcore", "kd_det"):
            logging.getLogger(name).handlers.clear()
