r"""Wrong values and malformed config files for the three tools, each tried in a dry run.

python benchmarks/fuzz.py --options 500 --files 100

Every try must end in a step or in one line that says what is wrong: no traceback, no bug, no hang.
All is drawn from --seed. It ends with a table by tool and status, and with exit status 1 if any try
failed.
"""

import argparse
import contextlib
import importlib
import io
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz_tries import Try, file_tries, option_tries, write_files

LIMIT = 60  # seconds of one try
SHARES = {"cls": 0.6, "reid": 0.25, "det": 0.15}
"""Of all tries, by tool."""


@dataclass(frozen=True)
class Outcome:
    """How a try ended; `problem` says what must not be."""

    status: int | str
    line: str
    problem: str


class _HangError(BaseException):
    """No `except Exception` takes it."""


def run(attempt: Try, folder: Path, limit: float = LIMIT) -> Outcome:
    """Run a try in this process, in a folder, for so many seconds at most."""
    out, err, status = io.StringIO(), io.StringIO(), "?"

    def stop(*_: object) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    here = Path.cwd()
    try:
        os.chdir(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = tool_of(attempt.tool)(list(attempt.argv))
    except _HangError:
        status = "hang"
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else "exit"
    except BaseException as error:
        status = type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.chdir(here)
    return Outcome(status, *_judged(status, out.getvalue(), err.getvalue()))


def _judged(status: int | str, out: str, err: str) -> tuple[str, str]:
    """Return the last line of what a try said, and what is wrong with how it ended."""
    line = next((text for text in reversed(err.splitlines()) if text.strip()), "")
    if status not in (0, 1, 2):
        return line, f"ended with {status}"
    if "Traceback" in err or "bug of kd" in err:
        return line, "a traceback, or a bug"
    if status == 0 and "one training step done" not in out:
        return line, "accepted without a step"
    if status != 0 and "error:" not in line:
        return line, "refused without a line"
    return line, ""


def tool_of(tool: str) -> Callable[[list[str]], int]:
    """Return the main function of a tool."""
    return importlib.import_module(f"kd_{tool}.train").main  # type: ignore[no-any-return]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tries; return 1 if one of them ended as it must not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tools", nargs="+", default=["cls", "reid", "det"])
    parser.add_argument("--options", type=int, default=500)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    whole = sum(SHARES[tool] for tool in args.tools)
    counts: Counter[tuple[str, int | str]] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        for tool in args.tools:
            draw, part = random.Random(f"{args.seed} {tool}"), SHARES[tool] / whole
            for make, count in ((option_tries, args.options), (file_tries, args.files)):
                for attempt in make(tool, draw, round(count * part), folder):
                    ended = run(attempt, folder)
                    counts[tool, ended.status] += 1
                    if ended.problem:
                        failed += 1
                        print(
                            f"{tool} {attempt.what!r}: {ended.problem}: {ended.line:.300}",
                            flush=True,
                        )
    print("tool  status  tries")
    for (tool, status), count in sorted(counts.items(), key=str):
        print(f"{tool:5} {status!s:7} {count}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
